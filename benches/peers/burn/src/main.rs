//! Times burn's attention on wgpu on the cases of benches/cases.toml, as the bench example times this library's.
//!
//!     burn-peer --csv burn.csv
//!
//! Built as it is, burn compiles to SPIR-V (its feature `vulkan`); with `--no-default-features`, to WGSL, as its feature `wgpu` alone does.
//!
//! Each case runs in a process of its own: burn tunes at a first call and remembers, and a case that fails takes its
//! process with it.

mod case;
mod measure;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Parser;

use case::{Case, DType};
use measure::Measured;

#[derive(Parser)]
#[command(about = "Times burn's attention on wgpu, after checking it against the formula in f64.")]
struct Args {
    /// Cases to run, by name; all that burn can express and that suit the device unless given.
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// Writes one row a case to FILE, each as soon as it is measured.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// A case table of your own instead of benches/cases.toml.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Timed repetitions; the median counts.
    #[arg(long, default_value_t = 11)]
    repeats: usize,
    /// Measures the one case given in this process, and prints its row.
    #[arg(long)]
    here: bool,
}

/// The columns of examples/bench, and the seconds to a first result.
const CSV_HEADER: &str = "case,device,driver,dtype,batch,heads,heads_kv,len_q,len_kv,head_dim,v_dim,mask,path,ms,tflops,\
                          gbs,of_fma,of_copy,rel_err,tile_density,of_dense,first_s";
const PATH: &str = if cfg!(feature = "spirv") { "burn 0.22 wgpu spirv" } else { "burn 0.22 wgpu wgsl" };

fn main() {
    let args = Args::parse();
    if let Err(e) = if args.here { here(&args) } else { run(&args) } {
        eprintln!("burn-peer: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<(), String> {
    let info = adapter()?;
    eprintln!("{} ({:?}, {} {})", info.name, info.backend, info.driver, info.driver_info);
    let cpu = info.device_type == wgpu::DeviceType::Cpu;
    let mut cases = case::read(args.cases.as_deref())?;
    for name in &args.case {
        if cases.iter().all(|case| case.name != *name) {
            return Err(format!("--case: {name} is not in the case table, or nothing that burn can express"));
        }
    }
    cases.retain(|case| if args.case.is_empty() { case.cpu || !cpu } else { args.case.contains(&case.name) });

    let mut rows = vec![CSV_HEADER.to_string()];
    for case in &cases {
        match child(args, case) {
            Ok(row) => {
                eprintln!("{}", line(&row));
                rows.push(row);
            }
            Err(e) => eprintln!("{} {PATH}: {e}", case.name),
        }
        if let Some(path) = &args.csv {
            std::fs::write(path, rows.join("\n") + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

/// A case's row, from another process; its last words otherwise.
fn child(args: &Args, case: &Case) -> Result<String, String> {
    // By the name that this program was given: current_exe is the dynamic loader where that started it.
    let program = std::env::args_os().next().ok_or("the program does not know its name")?;
    let mut command = Command::new(program);
    command.args(["--here", "--case", &case.name, "--repeats", &args.repeats.to_string()]);
    if let Some(path) = &args.cases {
        command.arg("--cases").arg(path);
    }
    // What an earlier run tuned would hide what a first call takes.
    command.env("CUBECL_AUTOTUNE_CACHE", "0").stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let (true, Some(row)) = (output.status.success(), text.lines().find(|line| line.starts_with(&case.name))) {
        return Ok(row.into());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let said = |start: &str| text.lines().position(|line| line.contains(start)).and_then(|i| text.lines().nth(i + 1));
    let own = text.lines().find_map(|line| line.strip_prefix("burn-peer: "));
    let words = own.or_else(|| said("panicked at")).or_else(|| text.lines().last()).unwrap_or("said nothing");
    Err(format!("{} ({})", words.chars().take(400).collect::<String>(), output.status))
}

fn here(args: &Args) -> Result<(), String> {
    let cases = case::read(args.cases.as_deref())?;
    let case = cases.iter().find(|case| args.case.contains(&case.name)).ok_or("--case: is not in the case table")?;
    let measured = measure::measure(case, args.repeats)?;
    println!("{}", row(case, &adapter()?, &measured));
    Ok(())
}

/// What burn's default device is: the adapter that wgpu holds to be the strongest.
fn adapter() -> Result<wgpu::AdapterInfo, String> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let options =
        wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
    let adapter = pollster::block_on(instance.request_adapter(&options)).map_err(|e| e.to_string())?;
    Ok(adapter.get_info())
}

fn row(case: &Case, info: &wgpu::AdapterInfo, measured: &Measured) -> String {
    let text = |s: &str| s.replace(',', ";");
    let dtype = if case.dtype == DType::F16 { "f16" } else { "f32" };
    let Case { batch, heads, len_q, head_dim, .. } = case;
    format!(
        "{},{},{},{dtype},{batch},{heads},{},{len_q},{},{head_dim},{},{},{PATH},{:.4},{:.4},{:.1},,,{:.2e},,,{:.2}",
        case.name,
        text(&info.name),
        text(&format!("{} {}", info.driver, info.driver_info)),
        case.heads_kv(),
        case.len_kv(),
        case.v_dim(),
        case.mask(),
        measured.seconds * 1e3,
        case.flops() / measured.seconds * 1e-12,
        case.bytes() / measured.seconds * 1e-9,
        measured.rel_err,
        measured.first
    )
}

/// A row as one reads it.
fn line(row: &str) -> String {
    let cells: Vec<&str> = row.split(',').collect();
    let [name, ms, tflops, rel_err, first] = [0, 13, 14, 18, 21].map(|i| cells.get(i).copied().unwrap_or(""));
    format!("{name:<36} {ms:>9} ms {tflops:>8} TFLOP/s, error {rel_err}, first {first} s, {PATH}")
}
