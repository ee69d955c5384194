//! The example that users run on golden cases, and scripts/test on all of them: one case passes, and cannot pass wrongly.

use std::path::Path;
use std::process::{Command, Output};

/// The conformance example on a file or folder.
fn conformance(path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["run", "--quiet", "--example", "conformance", "--"])
        .arg(path)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().expect("cargo runs")
}

/// A case as it ships, and a copy of it with one wrong expectation.
#[test]
fn conformance_passes_and_can_fail() {
    let file = "softmax_attention__dense_small.safetensors";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let right = conformance(&golden);
    let text = String::from_utf8_lossy(&right.stdout);
    assert!(right.status.success(), "{text}{}", String::from_utf8_lossy(&right.stderr));
    assert!(text.trim_end().ends_with("1 passed, 0 failed, 0 skipped"), "{text}");

    let folder = std::env::temp_dir().join(format!("wgpu-attention-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let mut bytes = std::fs::read(golden).expect("the file ships");
    // The last four bytes are a float of some tensor: make it large.
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&1e3f32.to_le_bytes());
    std::fs::write(folder.join(file), bytes).expect("a temporary file");
    let perturbed = conformance(&folder);
    std::fs::remove_dir_all(&folder).expect("the temporary folder goes");
    assert!(!perturbed.status.success());
    assert!(String::from_utf8_lossy(&perturbed.stdout).trim_end().ends_with("0 passed, 1 failed, 0 skipped"));
}
