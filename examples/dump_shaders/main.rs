//! Writes every shader that the library can emit, as WGSL and as what naga makes of it, for compilers of other makers.
//!
//!     cargo run --example dump_shaders -- DIR [--filter TEXT] [--sample N] | --plans
//!
//! Each is NAME.wgsl, NAME.spv, and where the target can have it NAME.msl and NAME.hlsl; index.json says what each needs.
//! With `--plans`, whole plans with their data instead, which `tests/dawn` runs. `scripts/lib/compilers.sh` feeds them to the compilers.

mod planned;
mod plans;
mod recorded;
mod translate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wgpu_attention::shaders::{self, Shader};

use recorded::put;

#[derive(Parser)]
#[command(about = "Writes every shader that the library can emit, for compilers of other makers.")]
struct Args {
    /// Where to; files of an earlier run are removed first.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Only shaders whose name or description has this in it.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// One shader in so many, spread over all: for a quick look.
    #[arg(long, value_name = "N", default_value_t = 1)]
    sample: usize,
    /// Instead, plans of this machine's device at WebGPU limits, with data and with what must come out.
    #[arg(long, conflicts_with = "filter")]
    plans: bool,
}

/// What a compiler must know of a shader.
#[derive(Clone, Serialize)]
struct Entry {
    name: String,
    what: String,
    threads: u32,
    workgroup_bytes: u32,
    f16: bool,
    int64: bool,
    subgroups: bool,
    matrices: bool,
    /// Whether it keeps bounds checks, because it contains a user's text.
    checked: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(count) => {
            println!("{count} {}", if args.plans { "plans" } else { "shaders" });
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("dump_shaders: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<usize, String> {
    clear(&args.folder)?;
    if args.plans {
        return plans::write(&args.folder);
    }
    let sample = args.sample.max(1);
    let planned: Vec<Shader> = planned::all().map_err(|e| e.to_string())?.into_iter().step_by(sample).collect();
    // Hidden where standard error is not a terminal.
    let bar = ProgressBar::new((shaders::grid_len().div_ceil(sample) + planned.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    let wanted = |shader: &Shader| match &args.filter {
        Some(filter) => shader.to_string().contains(filter) || name(shader).contains(filter),
        None => true,
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = |n: usize| {
        let mine = planned.iter().skip(n).step_by(workers).cloned().map(Ok);
        let mut entries = Vec::new();
        for shader in shaders::grid(n * sample, workers * sample).chain(mine) {
            let shader = shader.map_err(|e| e.to_string())?;
            if wanted(&shader) {
                bar.set_message(name(&shader));
                entries.push(write(&shader, &args.folder).map_err(|e| format!("{shader}: {e}"))?);
            }
            bar.inc(1);
        }
        Ok::<_, String>(entries)
    };
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|n| scope.spawn(move || work(n))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker panicked: a bug")).collect::<Vec<_>>()
    });
    bar.finish_and_clear();
    let mut entries = parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(format!("two shaders are called {}", pair[0].name));
    }
    let index = serde_json::to_string_pretty(&entries).map_err(|e| e.to_string())?;
    put(&args.folder.join("index.json"), index.as_bytes())?;
    Ok(entries.len())
}

/// A shader that is gone must not be judged again.
fn clear(folder: &Path) -> Result<(), String> {
    let cannot = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(folder).map_err(cannot)?;
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path
            .extension()
            .is_some_and(|e| ["wgsl", "spv", "msl", "hlsl", "json", "bin", "expected"].iter().any(|mine| e == *mine))
        {
            std::fs::remove_file(&path).map_err(cannot)?;
        }
    }
    Ok(())
}

/// The beginning of what it displays, and a hash of all that it is made for: the same from run to run.
fn name(shader: &Shader) -> String {
    let slug: String = shader.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let words: Vec<&str> = slug.split('-').filter(|word| !word.is_empty()).take(9).collect();
    let hash = shader.key().bytes().fold(0xcbf29ce484222325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100000001b3));
    format!("{}-{:08x}", words.join("-"), hash as u32)
}

fn write(shader: &Shader, folder: &Path) -> Result<Entry, String> {
    let name = name(shader);
    let file = |extension: &str| folder.join(format!("{name}.{extension}"));
    put(&file("wgsl"), format!("// {shader}\n// {}\n{}", shader.key(), shader.text()).as_bytes())?;
    let words = shader.spirv().map_err(|e| e.to_string())?;
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    put(&file("spv"), &bytes)?;
    if !shader.on_matrix_units() {
        let info = translate::validate(shader.module())?;
        let msl = translate::msl(shader.module(), &info, shader.checks())?;
        if translate::multiplies_blocks(&msl) {
            return Err("multiplies blocks, which Metal is not given".into());
        }
        put(&file("msl"), msl.as_bytes())?;
        put(&file("hlsl"), translate::hlsl(shader.module(), &info, shader.checks())?.as_bytes())?;
    }
    Ok(entry(name, shader))
}

fn entry(name: String, shader: &Shader) -> Entry {
    let code: String = shader.text().lines().filter_map(|line| line.split("//").next()).collect();
    Entry {
        what: shader.to_string(),
        threads: shader.threads(),
        workgroup_bytes: shader.workgroup_bytes(),
        f16: code.contains("enable f16;"),
        int64: code.contains("u64"),
        subgroups: ["subgroupAdd", "subgroupAny", "subgroupBroadcast", "subgroupMax", "subgroupShuffle"]
            .iter()
            .any(|word| code.contains(word)),
        matrices: shader.on_matrix_units(),
        checked: shader.checks().bounds_checks,
        name,
    }
}
