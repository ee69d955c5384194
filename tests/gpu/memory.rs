//! Memory: more than there is, an error; what is done many times, no growth.

use wgpu_attention::{
    Attention, AttentionIo, DType, Error, HeadNorm, Layout, LinearAttention, Merge, Permute, Result, Tensor,
};

use crate::support::{Case, ctx, download, long, this_program};

#[track_caller]
fn refused<T>(result: Result<T>) {
    match result {
        Ok(_) => panic!("accepted"),
        Err(Error::Limit(sentence) | Error::Shape(sentence) | Error::Layout(sentence)) => assert!(!sentence.is_empty()),
        Err(e) => panic!("{e:?}"),
    }
}

#[test]
fn more_memory_than_there_is() {
    for len in [1 << 36, 1 << 40, 1 << 61, usize::MAX / 4, usize::MAX] {
        for shape in [[1, 1, 1, len], [len, 1, 1, 1], [1, 1, len, 1]] {
            refused(Tensor::zeros(ctx(), DType::F32, shape));
            refused(Tensor::from_slice(ctx(), shape, &[0u32]));
        }
    }
    // Layouts cost nothing, and describe what no device holds.
    for (len, dim) in [(1 << 40, 8), (1 << 57, 8), (1 << 40, 256), (1 << 60, 1)] {
        for shape in [[1, 1, len, dim], [1, len, 1, dim], [len, 1, 1, dim], [1, 1, dim, len]] {
            let x = Layout::new(DType::F32, shape).unwrap();
            refused(Attention::new(x, x, x).plan(ctx()));
            refused(LinearAttention::new(x, x, x).plan(ctx()));
            refused(LinearAttention::new(x, x, x).delta(x).steps(usize::MAX).plan(ctx()));
            refused(LinearAttention::new(x, x, x).plan_backward(ctx(), false));
            refused(HeadNorm::new(x).plan(ctx()));
            refused(Permute::new(x, &[0]).plan(ctx()));
            refused(Merge::new(1, x, x).plan(ctx()));
        }
    }
}

/// Repeated elements make tensors of any length out of little memory.
#[test]
fn more_elements_than_there_are() {
    let one = Tensor::zeros(ctx(), DType::F32, [1, 1, 1, 1]).unwrap();
    for dim in 0..4 {
        // More than 32 bits count: results of 32 GiB and more.
        for len in [1 << 33, 1 << 40, 1 << 60] {
            let x = one.expand(dim, len).unwrap();
            refused(Attention::new(&x, &x, &x).run(ctx()));
            refused(LinearAttention::new(&x, &x, &x).run(ctx()));
            refused(HeadNorm::new(&x).run(ctx()));
            refused(Merge::new(1, &x, &x).run(ctx()));
        }
    }
}

/// Resident memory, in bytes: counted page by page, for `statm` may be some tens of pages behind on each processor.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// In a process of its own: memory is everybody's.
#[test]
#[cfg(target_os = "linux")]
fn many_dispatches_keep_nothing() {
    let program = this_program();
    let output = std::process::Command::new(&program[0])
        .args(&program[1..])
        .args(["memory::child_dispatches", "--exact", "--nocapture", "--include-ignored"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// Rounds in which the dispatches are made.
#[cfg(target_os = "linux")]
const ROUNDS: usize = 4;

/// What [`many_dispatches_keep_nothing`] runs.
#[test]
#[ignore = "takes the process for itself"]
#[cfg(target_os = "linux")]
fn child_dispatches() {
    let case = Case::new(1, 1).dims(4, 4).heads(1, 1, 1);
    let [q, k, v] = case.upload(ctx()).unwrap();
    let out = Tensor::zeros(ctx(), DType::F32, [1, 1, 1, 4]).unwrap();
    let plan = Attention::new(&q, &k, &v).plan(ctx()).unwrap();
    let dispatches = |count: usize| {
        for _ in 0..count / 100 {
            let mut encoder = ctx().device().create_command_encoder(&Default::default());
            for _ in 0..100 {
                plan.encode(&mut encoder, &AttentionIo::new(&q, &k, &v, &out)).unwrap();
            }
            ctx().queue().submit([encoder.finish()]);
            ctx().device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        }
    };
    // What is kept on purpose has been made by then.
    dispatches(2_000);
    let count = if long() { 100_000 } else { 20_000 } / ROUNDS;
    let grown = |_| {
        let before = resident();
        dispatches(count);
        resident().saturating_sub(before)
    };
    // What is kept for each dispatch grows in every round; an allocator takes a piece now and then.
    let grown = (0..ROUNDS).map(grown).min().unwrap();
    println!("{count} dispatches left {grown} bytes behind");
    // Less than a word a dispatch.
    assert!(grown < 4 * count);
    let (exact, _) = case.oracle::<f64>();
    assert!((download(ctx(), &out).unwrap()[0] - exact[0]).abs() < 1e-6);
}

/// In a process of its own, which may have little memory.
#[test]
#[cfg(target_os = "linux")]
fn memory_that_runs_out() {
    // A GPU's memory is the other tests' too.
    if ctx().device().adapter_info().device_type != wgpu::DeviceType::Cpu {
        return;
    }
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -v 8000000; exec \"$@\" memory::child_runs_out --exact --nocapture --include-ignored",
            "sh",
        ])
        .args(this_program())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // Later versions of lavapipe map memory without looking whether that went well (26.1 does), and say that there is more than
    // the process may have. Nobody can tell there, and only what comes after is tested.
    let told = ["tensor: the device is out of memory, and goes on", "the driver gave all of it, and goes on"];
    let told = told.iter().any(|told| text.contains(told)) && text.contains("1 passed");
    assert!(told, "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// What [`memory_that_runs_out`] runs.
#[test]
#[ignore = "takes the process for itself"]
fn child_runs_out() {
    let mut held = Vec::new();
    loop {
        // 50 GiB, where 8 GB may be had.
        if held.len() == 100 {
            let driver = ctx().device().adapter_info().driver_info;
            assert!(driver.starts_with("Mesa ") && !driver.starts_with("Mesa 22."), "{driver} gave 100 of them");
            println!("the driver gave all of it, and goes on");
            break;
        }
        match Tensor::zeros(ctx(), DType::F32, [1, 1, 1, 1 << 27]) {
            Ok(tensor) => held.push(tensor),
            Err(e) => {
                assert!(matches!(e, Error::Device(_)), "{e:?}");
                println!("{} {e}, and goes on", held.len());
                break;
            }
        }
    }
    drop(held);
    Case::new(20, 30).check_on("after memory ran out", ctx());
}
