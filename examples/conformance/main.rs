//! Checks attention on this machine's GPU against cases made by independent implementations.
//!
//!     cargo run --release --example conformance -- [--ops a,b] [--limits webgpu] [--path a,b] [--twice] [--json FILE] [--plans DIR] PATH...
//!
//! A case is a `.safetensors` file: inputs by plain name, outputs as `expected.<name>`, and in its metadata the operator
//! (`op`), `params` (a JSON object), `rtol`, `atol` and, where an output has one of its own, `atol.<output>`. `operators`
//! has the table of what is offered; a new operator is one function and one row there.

mod attend;
mod case;
mod check;
mod composed;
mod layers;
mod linear;
mod masks;
mod merge;
mod operators;
mod packed;
mod params;
mod path;
mod pictures;
mod planners;
#[path = "../dump_shaders/recorded.rs"]
mod recorded;
mod report;
mod s4d;
mod softmax;
mod video;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_attention::shaders::Recorder;
use wgpu_attention::{Context, DType, Tile};

use case::{Case, Data};
use operators::{Output, Stop};
use path::Path as Way;
use recorded::Outcome;
use report::{CaseResult, Report};

#[derive(Parser)]
#[command(about = "Checks attention on this machine's GPU against cases made by independent implementations.")]
struct Args {
    /// Operators to check; the files of all others are left out.
    #[arg(long, value_delimiter = ',', value_name = "OP")]
    ops: Vec<String>,
    /// What the device may be asked for.
    #[arg(long, value_enum, default_value_t = Limits::Found)]
    limits: Limits,
    /// Which ways attention is computed, one after the other. The ways of f16 leave out operators that read no tensor which may be f16.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Way::Chosen], value_name = "WAY")]
    path: Vec<Way>,
    /// Runs each case twice; the results must be equal bit by bit.
    #[arg(long)]
    twice: bool,
    /// Writes every result to FILE as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also writes what each case ran, on which data, and what it must give, for other implementations of WebGPU (tests/dawn).
    #[arg(long, value_name = "DIR", conflicts_with_all = ["twice", "path"])]
    plans: Option<PathBuf>,
    /// Case files, and folders to search for them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// A device to run on.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Limits {
    /// With all that it has.
    Found,
    /// With what every WebGPU implementation must offer, and no more.
    Webgpu,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("conformance: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing failed.
fn run(args: &Args) -> Result<bool, String> {
    let mut files = Vec::new();
    for path in &args.paths {
        collect(path, &mut files)?;
    }
    files.sort();
    files.dedup();
    // A device a thread: software drivers compile on the thread that submits, and that is most of the time they take.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len()).max(1);
    let contexts: Vec<Context> =
        (0..workers).map(|_| pollster::block_on(open(args.limits))).collect::<Result<_, _>>()?;
    let info = contexts[0].device().adapter_info();
    eprintln!("{} ({:?}, {} {})", info.name, info.backend, info.driver, info.driver_info);
    let mut results = Vec::new();
    for way in &args.path {
        if *way != Way::Chosen {
            eprintln!("by way of {way:?}");
        }
        let restricted = contexts.iter().map(|ctx| way.restrict(ctx)).collect::<Result<Vec<_>, _>>()?;
        let tile = way.tile(restricted[0].capabilities())?;
        results.extend(check_all(&restricted, &files, (*way, tile), args));
    }

    for op in args.ops.iter().filter(|op| results.iter().all(|result| result.op != **op)) {
        eprintln!("conformance: --ops: no case of {op} was found");
    }
    let report = Report::new(&info, results);
    if let Some(path) = &args.json {
        std::fs::write(path, report.json()?).map_err(|e| format!("{}: cannot be written ({e})", path.display()))?;
    }
    std::io::stdout().write_all(report.text().as_bytes()).map_err(|e| format!("standard output: {e}"))?;
    Ok(report.failed == 0)
}

async fn open(limits: Limits) -> Result<Context, String> {
    if limits == Limits::Found {
        return Context::request().await.map_err(|e| e.to_string());
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter =
        wgpu::util::initialize_adapter_from_env_or_default(&instance, None).await.map_err(|e| e.to_string())?;
    // No feature, and the limits that need not be asked for: wgpu refuses what goes beyond, workgroup memory apart.
    let (device, queue) = adapter.request_device(&Default::default()).await.map_err(|e| e.to_string())?;
    let ctx = Context::new(&device, &queue);
    let capabilities = ctx.capabilities().clone().webgpu_defaults();
    ctx.restricted(capabilities).map_err(|e| e.to_string())
}

/// The results of all files, in their order.
fn check_all(contexts: &[Context], files: &[PathBuf], way: (Way, Option<Tile>), args: &Args) -> Vec<CaseResult> {
    // Hidden where standard error is not a terminal.
    let bar = ProgressBar::new(files.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    let next = AtomicUsize::new(0);
    let work = |ctx: &Context| {
        let mut results = Vec::new();
        while let Some((n, path)) = {
            let n = next.fetch_add(1, Ordering::Relaxed);
            files.get(n).map(|path| (n, path))
        } {
            bar.set_message(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
            results.extend(check_file(ctx, path, way, args).map(|result| (n, result)));
            bar.inc(1);
        }
        results
    };
    let mut results: Vec<(usize, CaseResult)> = std::thread::scope(|scope| {
        let workers: Vec<_> = contexts.iter().map(|ctx| scope.spawn(|| work(ctx))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a bug in the runner: a worker panicked")).collect()
    });
    bar.finish_and_clear();
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The case files at `path`: itself, or all below it. A file that is named outright is taken whatever its extension.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("{}: cannot be read ({e})", path.display());
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?.path();
        if entry.is_dir() || entry.extension().is_some_and(|extension| extension == "safetensors") {
            collect(&entry, files)?;
        }
    }
    Ok(())
}

/// The result of one file; `None` where it belongs to an operator that was not asked for.
fn check_file(ctx: &Context, path: &Path, (way, tile): (Way, Option<Tile>), args: &Args) -> Option<CaseResult> {
    // Whose case an unreadable file is cannot be told, so it counts whatever was asked for.
    let opened = std::fs::read(path).map_err(|e| format!("cannot be read ({e})"));
    let opened = opened.and_then(|bytes| Ok((case::metadata(&bytes)?, bytes)));
    let (metadata, bytes) = match opened {
        Ok(opened) => opened,
        Err(reason) => return Some(CaseResult::stopped(path, report::UNREADABLE, Stop::Failed(reason))),
    };
    let Some(op) = metadata.get("op") else {
        let reason = "the metadata names no op".to_string();
        return Some(CaseResult::stopped(path, report::UNREADABLE, Stop::Failed(reason)));
    };
    if !args.ops.is_empty() && !args.ops.contains(op) {
        return None;
    }
    let operator = operators::find(op);
    if way.dtype() == DType::F16 && operator.as_ref().is_ok_and(|operator| !operator.goes_by_f16()) {
        return None;
    }
    let compared = operator.and_then(|operator| {
        let mut case = Case::parse(&bytes, &metadata).map_err(Stop::Failed)?;
        if way.dtype() == DType::F16 {
            // Files are of f32: so f16 is judged by what f32, which they judge, makes of operands that f16 holds.
            case = case.rounded();
            let exact = operator.run(ctx, &case)?;
            case = case.in_f16(exact);
        }
        case.tile = tile;
        let recorder = Recorder::default();
        let recorded = args.plans.as_ref().map(|folder| (folder, recorder.context(ctx)));
        let outputs =
            operator.run(recorded.as_ref().map_or(ctx, |(_, ctx)| ctx), &case).map_err(|stop| match stop {
                // Then f16 is read four at a time, and other rows are refused.
                Stop::Failed(reason) if !ctx.capabilities().f16 && reason.contains("no 16-bit floats") => {
                    Stop::NotOffered(reason)
                }
                stop => stop,
            })?;
        if args.twice {
            check::same_bits(&outputs, &operator.run(ctx, &case)?).map_err(Stop::Failed)?;
        }
        if let Some((folder, _)) = recorded {
            save(ctx, folder, path, &recorder, (&case, &outputs)).map_err(Stop::Failed)?;
        }
        Ok(check::compare_all(&case, &outputs))
    });
    Some(match compared {
        Ok(comparisons) => CaseResult::compared(path, op, comparisons),
        Err(stop) => CaseResult::stopped(path, op, stop),
    })
}

/// Writes what a case recorded, with the tensors that its file expects as they are. What the host computes, or computes on, is
/// not among them.
fn save(
    ctx: &Context,
    folder: &Path,
    path: &Path,
    recorder: &Recorder,
    (case, outputs): (&Case, &[Output]),
) -> Result<(), String> {
    let outcome = |output: &Output| {
        let (want, tolerance) = case.expected.get(output.name)?;
        let Data::Floats(want) = &want.data else { return None };
        Some(Outcome {
            name: output.name.to_string(),
            tensor: output.tensor.clone()?,
            want: want.clone(),
            rtol: tolerance.rtol,
            atol: tolerance.atol,
        })
    };
    let outcomes: Vec<Outcome> = outputs.iter().filter_map(outcome).collect();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    recorded::save(ctx, folder, &name, recorder, &outcomes).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_and_missing_paths_refused() {
        let root = std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        for name in ["a/b/two.safetensors", "one.safetensors", "a/notes.txt"] {
            std::fs::write(root.join(name), b"").unwrap();
        }
        let mut files = Vec::new();
        collect(&root, &mut files).unwrap();
        files.sort();
        assert_eq!(files, [root.join("a/b/two.safetensors"), root.join("one.safetensors")]);
        assert!(collect(&root.join("absent"), &mut files).unwrap_err().contains("absent: cannot be read"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
