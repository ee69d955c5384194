//! Our speed beside that of others, on the same cases: `benches/peers` measures them and writes the same CSV.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;

use crate::cases::Case;

/// A row of another's: one way of computing a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// As in "torch FLASH_ATTENTION".
    pub path: String,
    pub device: String,
    pub ms: f64,
}

/// The peers of each case, by its name, in the order of the files.
pub type Peers = HashMap<String, Vec<Peer>>;

/// Reads the CSV files of `--against`; a later row of the same case and path takes the place of an earlier one.
pub fn read(files: &[PathBuf], cases: &[Case]) -> Result<Peers, String> {
    read_all("--against", files, cases).map(latest)
}

fn latest(mut peers: Peers) -> Peers {
    for rows in peers.values_mut() {
        for row in std::mem::take(rows) {
            rows.retain(|peer| peer.path != row.path);
            rows.push(row);
        }
    }
    peers
}

/// All rows of CSV files. Those of other tables' cases are passed over, but a row that has a case's name must have its shape.
fn read_all(argument: &str, files: &[PathBuf], cases: &[Case]) -> Result<Peers, String> {
    let mut peers = Peers::new();
    for file in files {
        let named = |e: String| format!("{argument}: {}: {e}", file.display());
        let text = std::fs::read_to_string(file).map_err(|e| named(e.to_string()))?;
        parse(&text, cases, &mut peers).map_err(named)?;
    }
    Ok(peers)
}

fn parse(text: &str, cases: &[Case], peers: &mut Peers) -> Result<(), String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let columns: Vec<&str> = lines.next().map_or(vec![], |(_, line)| line.split(',').collect());
    let column = |name: &str| {
        columns.iter().position(|&column| column == name).ok_or(format!("its first line names no column {name:?}"))
    };
    let [name_at, path_at, ms_at, device_at] = [column("case")?, column("path")?, column("ms")?, column("device")?];
    for (n, line) in lines {
        let cells: Vec<&str> = line.split(',').collect();
        if cells.len() != columns.len() {
            return Err(format!("line {} has {} cells, but the first line {}", n + 1, cells.len(), columns.len()));
        }
        let Some(case) = cases.iter().find(|case| case.name == cells[name_at]) else { continue };
        for (name, ours) in shape(case) {
            let theirs = cells[column(name)?];
            if theirs != ours {
                let case = &case.name;
                return Err(format!("line {}: {name} of {case} is {theirs:?}, but the case table has {ours:?}", n + 1));
            }
        }
        let ms = cells[ms_at].parse::<f64>().ok().filter(|ms| *ms > 0.0 && ms.is_finite());
        let ms = ms.ok_or(format!("line {}: ms is {:?}, but must be a number above 0", n + 1, cells[ms_at]))?;
        // This library's own rows tell much behind the kernel's name.
        let path = cells[path_at].split(';').next().unwrap_or_default().to_string();
        peers.entry(case.name.clone()).or_default().push(Peer { path, device: cells[device_at].into(), ms });
    }
    Ok(())
}

/// The cells by which a row is known to be of this case.
fn shape(case: &Case) -> [(&'static str, String); 9] {
    [
        ("dtype", case.dtype.to_string()),
        ("batch", case.batch.to_string()),
        ("heads", case.heads.to_string()),
        ("heads_kv", case.heads_kv.to_string()),
        ("len_q", case.len_q.to_string()),
        ("len_kv", case.len_kv.to_string()),
        ("head_dim", case.head_dim.to_string()),
        ("v_dim", case.v_dim.to_string()),
        ("mask", case.mask_name.clone()),
    ]
}

/// A case with our time, and its work.
pub struct Compared {
    pub case: Case,
    pub ms: f64,
    pub peers: Vec<Peer>,
    flops: f64,
    by_memory: bool,
}

impl Compared {
    pub fn is_bound_by_memory(&self) -> bool {
        self.by_memory
    }

    pub fn tflops(&self, ms: f64) -> f64 {
        self.flops / ms * 1e-9
    }

    /// What limits the case: arithmetic, or memory where that is the work.
    pub fn speed(&self, ms: f64) -> String {
        if self.by_memory {
            return format!("{:.0} GB/s", self.case.bytes() / ms * 1e-6);
        }
        format!("{} TFLOP/s", three_digits(self.tflops(ms)))
    }

    fn best(&self) -> Option<&Peer> {
        self.peers.iter().min_by(|a, b| a.ms.total_cmp(&b.ms))
    }
}

/// All cases of a run.
pub struct Comparison {
    peers: Peers,
    pub cases: Vec<Compared>,
}

impl Comparison {
    pub fn new(peers: Peers) -> Comparison {
        Comparison { peers, cases: Vec::new() }
    }

    /// Takes our time of a case, and says how our speed compares, a line a peer. Of several times the shortest stays.
    pub fn add(&mut self, case: &Case, seconds: f64) -> Vec<String> {
        let peers = self.peers.get(&case.name).cloned().unwrap_or_default();
        let (flops, by_memory) = (case.flops(), case.is_bound_by_memory());
        let compared = Compared { case: case.clone(), ms: seconds * 1e3, peers, flops, by_memory };
        let ratio =
            |peer: &Peer| format!("{:.2} of {} ({})", peer.ms / compared.ms, peer.path, compared.speed(peer.ms));
        let ratios = compared.peers.iter().map(ratio).collect();
        match self.cases.iter_mut().find(|earlier| earlier.case.name == case.name) {
            Some(earlier) if earlier.ms <= compared.ms => {}
            Some(earlier) => *earlier = compared,
            None => self.cases.push(compared),
        }
        ratios
    }

    /// Takes the times of an earlier run from its file, in the order of the table; returns the device that they are of.
    pub fn add_recorded(
        &mut self,
        file: &PathBuf,
        cases: &[Case],
        wanted: impl Fn(&&Case) -> bool,
    ) -> Result<String, String> {
        let recorded = read_all("--recorded", std::slice::from_ref(file), cases)?;
        let mut device = None;
        for case in cases.iter().filter(wanted) {
            for row in recorded.get(&case.name).into_iter().flatten() {
                self.add(case, row.ms * 1e-3);
                device = Some(row.device.clone());
            }
        }
        device.ok_or(format!("--recorded: {} has no row of a case that is asked for", file.display()))
    }

    /// Markdown: the cases that somebody else ran too, beside the fastest of them.
    pub fn table(&self) -> String {
        let mut text =
            String::from("| case | ms | speed | best peer | its speed | ours / its |\n|---|---|---|---|---|---|\n");
        for compared in &self.cases {
            let Some(best) = compared.best() else { continue };
            let (name, ms, speed) = (&compared.case.name, three_digits(compared.ms), compared.speed(compared.ms));
            let (path, theirs, ratio) = (&best.path, compared.speed(best.ms), best.ms / compared.ms);
            writeln!(text, "| {name} | {ms} | {speed} | {path} | {theirs} | {ratio:.2} |").expect("strings take all");
        }
        text
    }
}

/// A number with three digits that count.
pub fn three_digits(number: f64) -> String {
    let digits = (2.0 - number.log10().floor()).clamp(0.0, 5.0) as usize;
    format!("{number:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    const HEADER: &str =
        "case,device,driver,dtype,batch,heads,heads_kv,len_q,len_kv,head_dim,v_dim,mask,path,ms,first_s";
    const NAME: &str = "dense_f32_b1_h8_n1024_d64";

    fn parsed(rows: &[String]) -> Result<Peers, String> {
        let mut peers = Peers::new();
        let text = format!("{HEADER}\n{}\n", rows.join("\n"));
        parse(&text, &cases::read(None).unwrap(), &mut peers).map(|()| latest(peers))
    }

    fn row(path: &str, ms: &str) -> String {
        format!("{NAME},card,driver,f32,1,8,8,1024,1024,64,64,full,{path},{ms},0.1")
    }

    fn case() -> Case {
        cases::read(None).unwrap().into_iter().find(|case| case.name == NAME).unwrap()
    }

    #[test]
    fn rows_are_read_and_compared() {
        let rows = [
            row("torch MATH", "8.0"),
            row("torch MATH", "4.0"),
            row("torch FlexAttention", "1.0"),
            row("no_such_case", "1.0").replace(NAME, "other"),
        ];
        let peers = parsed(&rows).unwrap();
        assert_eq!(peers.len(), 1);
        let mut comparison = Comparison::new(peers);
        let ratios = comparison.add(&case(), 2e-3);
        assert_eq!(ratios, ["2.00 of torch MATH (0.537 TFLOP/s)", "0.50 of torch FlexAttention (2.15 TFLOP/s)"]);
        let line = format!("| {NAME} | 2.00 | 1.07 TFLOP/s | torch FlexAttention | 2.15 TFLOP/s | 0.50 |");
        assert_eq!(comparison.table().lines().nth(2), Some(&line[..]));
        // A slower tile under trial changes nothing.
        comparison.add(&case(), 3e-3);
        assert_eq!(comparison.table().lines().nth(2), Some(&line[..]));
    }

    #[test]
    fn an_earlier_run_takes_the_place_of_measuring() {
        let file = std::env::temp_dir().join(format!("recorded-{}.csv", std::process::id()));
        // The best of what was tried counts, in whatever order.
        let tried = ["3.0", "2.0", "4.0"].map(|ms| row("attention dense; f32", ms)).join("\n");
        std::fs::write(&file, format!("{HEADER}\n{tried}\n")).unwrap();
        let mut comparison = Comparison::new(parsed(&[row("torch MATH", "4.0")]).unwrap());
        assert_eq!(comparison.add_recorded(&file, &[case()], |_| true).unwrap(), "card");
        assert!(comparison.table().contains("| torch MATH | 0.537 TFLOP/s | 2.00 |"));
        let error = Comparison::new(Peers::new()).add_recorded(&file, &[case()], |_| false).unwrap_err();
        assert!(error.ends_with("has no row of a case that is asked for"), "{error}");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn bandwidth_counts_where_memory_is_the_work() {
        let decode = Case { len_q: 1, ..case() };
        let mut comparison = Comparison::new(Peers::new());
        assert!(comparison.add(&decode, 1e-3).is_empty());
        assert_eq!(comparison.cases[0].speed(1.0), "4 GB/s");
        assert_eq!(comparison.table().lines().count(), 2);
    }

    #[test]
    fn bad_files_get_a_sentence() {
        let file = PathBuf::from("no/such/peers.csv");
        let error = read(&[file], &[]).unwrap_err();
        assert!(error.starts_with("--against: no/such/peers.csv: "), "{error}");

        let error = |text: &str| parse(text, &[case()], &mut Peers::new()).unwrap_err();
        assert_eq!(error(""), "its first line names no column \"case\"");
        assert_eq!(error("case,path\n"), "its first line names no column \"ms\"");
        let error = |row: String| parsed(&[row]).unwrap_err();
        assert_eq!(error("dense,1".into()), "line 2 has 2 cells, but the first line 15");
        assert_eq!(error(row("torch MATH", "fast")), "line 2: ms is \"fast\", but must be a number above 0");
        let other = row("torch MATH", "1.0").replace(",8,8,1024", ",8,4,1024");
        let said = format!("line 2: heads_kv of {NAME} is \"4\", but the case table has \"8\"");
        assert_eq!(error(other), said);
    }
}
