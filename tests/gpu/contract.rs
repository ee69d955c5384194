//! The golden cases that ship with the project, by the example that users run.

use std::process::Command;

/// Runs the conformance example on the files of `tests/golden`, and on a copy with one wrong expectation, which it must
/// not pass.
#[test]
fn conformance_passes_and_can_fail() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = root.join("tests/golden");
    let run = |path: &std::path::Path| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["run", "--quiet", "--example", "conformance", "--"]).arg(path).current_dir(root);
        command.output().expect("cargo runs")
    };
    let whole = run(&golden);
    let text = String::from_utf8_lossy(&whole.stdout);
    assert!(whole.status.success(), "{text}{}", String::from_utf8_lossy(&whole.stderr));
    assert!(text.trim_end().ends_with(" passed, 0 failed, 0 skipped"), "{text}");

    let folder = std::env::temp_dir().join(format!("wgpu-attention-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let file = "softmax_attention__dense_small.safetensors";
    let mut bytes = std::fs::read(golden.join(file)).expect("the file ships");
    // The last four bytes are a float of some tensor: make it large.
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&1e3f32.to_le_bytes());
    std::fs::write(folder.join(file), bytes).expect("a temporary file");
    let perturbed = run(&folder);
    std::fs::remove_dir_all(&folder).expect("the temporary folder goes");
    assert!(!perturbed.status.success());
    assert!(String::from_utf8_lossy(&perturbed.stdout).trim_end().ends_with("0 passed, 1 failed, 0 skipped"));
}
