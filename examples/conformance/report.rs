//! Results, as lines and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::check::Comparison;
use crate::operators::Stop;

/// What a file that names no operator is counted under.
pub const UNREADABLE: &str = "unreadable";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Passed,
    Failed,
    Skipped,
}

/// What came of one case.
#[derive(Debug, Serialize)]
pub struct CaseResult {
    file: String,
    pub op: String,
    status: Status,
    /// Why nothing was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    outputs: Vec<Comparison>,
}

impl CaseResult {
    pub fn compared(path: &Path, op: &str, outputs: Vec<Comparison>) -> CaseResult {
        let passed = outputs.iter().all(|comparison| comparison.passed);
        let status = if passed { Status::Passed } else { Status::Failed };
        CaseResult { file: path.display().to_string(), op: op.to_string(), status, reason: None, outputs }
    }

    pub fn stopped(path: &Path, op: &str, stop: Stop) -> CaseResult {
        let (status, reason) = match stop {
            Stop::NotOffered(reason) => (Status::Skipped, reason),
            Stop::Failed(reason) => (Status::Failed, reason),
        };
        let file = path.display().to_string();
        CaseResult { file, op: op.to_string(), status, reason: Some(reason), outputs: Vec::new() }
    }

    /// A line an output that failed, or one for the case.
    fn failures(&self) -> Vec<String> {
        if self.status != Status::Failed {
            return Vec::new();
        }
        let failed = self.outputs.iter().filter(|comparison| !comparison.passed).map(describe);
        self.reason.iter().cloned().chain(failed).map(|what| format!("  failed {}: {what}", self.file)).collect()
    }
}

fn describe(c: &Comparison) -> String {
    match (&c.problem, &c.worst) {
        (None, Some(worst)) => format!(
            "{}{:?}: got {}, want {}, allowance {:?} ({} of {} elements are wrong)",
            c.output, worst.index, worst.got, worst.want, worst.allowance as f32, c.wrong, c.elements
        ),
        (problem, _) => format!("{}: {}", c.output, problem.as_deref().unwrap_or("was not compared")),
    }
}

#[derive(Debug, Serialize)]
struct Adapter {
    name: String,
    backend: String,
    device_type: String,
    driver: String,
    driver_info: String,
}

/// Cases of one operator.
#[derive(Debug, Default, Serialize)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    fn count(&mut self, status: Status) {
        match status {
            Status::Passed => self.passed += 1,
            Status::Failed => self.failed += 1,
            Status::Skipped => self.skipped += 1,
        }
    }
}

/// The whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    adapter: Adapter,
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    operators: BTreeMap<String, Tally>,
    cases: Vec<CaseResult>,
}

impl Report {
    pub fn new(info: &wgpu::AdapterInfo, cases: Vec<CaseResult>) -> Report {
        let adapter = Adapter {
            name: info.name.clone(),
            backend: format!("{:?}", info.backend),
            device_type: format!("{:?}", info.device_type),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
        };
        let (mut total, mut operators) = (Tally::default(), BTreeMap::<String, Tally>::new());
        for case in &cases {
            total.count(case.status);
            operators.entry(case.op.clone()).or_default().count(case.status);
        }
        let Tally { passed, failed, skipped } = total;
        Report { adapter, passed, failed, skipped, operators, cases }
    }

    /// A line an operator, its failures below it, and the sums.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (op, Tally { passed, failed, skipped }) in &self.operators {
            writeln!(text, "{op}\t{passed}\t{failed}\t{skipped}").expect("a string takes all");
            for line in self.cases.iter().filter(|case| case.op == *op).flat_map(CaseResult::failures) {
                writeln!(text, "{line}").expect("a string takes all");
            }
        }
        writeln!(text, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
            .expect("a string takes all");
        text
    }

    pub fn json(&self) -> Result<String, String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| format!("the results are no JSON ({e})"))?;
        Ok(text + "\n")
    }
}
