// SPDX-License-Identifier: GPL-2.0

//! The program as a script runs it: exit statuses, files, and what it refuses.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MODULE: &str = "sys/kernel/mm/page_hinting";

/// A guest whose module has this file alone.
fn guest_with(file: &str) -> TempDir {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join(MODULE)).unwrap();
    fs::write(root.path().join(MODULE).join(file), "").unwrap();
    root
}

fn hintstat(root: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hintstat"))
        .arg("--root")
        .arg(root.path())
        .args(arguments)
        .output()
        .unwrap()
}

fn status(root: &TempDir, arguments: &[&str]) -> i32 {
    hintstat(root, arguments).status.code().unwrap()
}

fn printed(root: &TempDir, arguments: &[&str]) -> String {
    String::from_utf8(hintstat(root, arguments).stdout).unwrap()
}

#[test]
fn without_the_module_what_needs_it_ends_with_3() {
    let root = TempDir::new().unwrap();
    for arguments in [["status"], ["flush"], ["rehint"]] {
        let output = hintstat(&root, &arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("is not loaded"), "{said}");
    }
    for arguments in [["explain"], ["metrics"], ["man"]] {
        assert_eq!(status(&root, &arguments), 0, "{arguments:?}");
    }
    assert!(!root.path().join(MODULE).exists());
}

#[test]
fn a_module_that_cannot_be_read_is_another_error() {
    let root = guest_with("flush");
    assert_eq!(status(&root, &["status"]), 1);
    assert_eq!(status(&root, &["rehint"]), 1);
    assert_eq!(status(&root, &["metrics"]), 1);
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let root = guest_with("flush");
    for arguments in [
        &[][..],
        &["--json"],
        &["status", "-o", "openmetrics"],
        &["metrics", "-o", "json"],
        &["flush", "--timeout", "5"],
        &["flush", "--timeout", "0s"],
        &["flush", "--timeout", "25h"],
        &["watch", "--interval", "49ms"],
        &["watch", "--interval", "61s"],
    ] {
        assert_eq!(status(&root, arguments), 2, "{arguments:?}");
    }
    let flushed = fs::read_to_string(root.path().join(MODULE).join("flush")).unwrap();
    assert_eq!(flushed, "");
}

#[test]
fn flush_takes_durations_and_writes_1() {
    for timeout in ["500ms", "2s", "1m 30s", "24h"] {
        let root = guest_with("flush");
        let output = hintstat(&root, &["flush", "--timeout", timeout]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let flushed = fs::read_to_string(root.path().join(MODULE).join("flush")).unwrap();
        assert_eq!(flushed, "1");
    }
}

/// A pipe that is full blocks the write, as a flush does. The limit is no whole second.
#[test]
fn a_flush_that_takes_too_long_ends_with_5() {
    let root = guest_with("enabled");
    let pipe = root.path().join(MODULE).join("flush");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let mut full = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&pipe)
        .unwrap();
    while full.write(&[0; 4096]).is_ok() {}

    let start = Instant::now();
    let output = hintstat(&root, &["flush", "--timeout", "1100ms"]);
    let took = start.elapsed();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not done after 1s 100ms"), "{said}");
    assert!(took >= Duration::from_millis(1100), "{took:?}");
}

#[test]
fn rehint_writes_1() {
    let root = guest_with("rehint");
    assert_eq!(status(&root, &["rehint"]), 0);
    let written = fs::read_to_string(root.path().join(MODULE).join("rehint")).unwrap();
    assert_eq!(written, "1");
}

/// Who has the old file open still reads it, and nothing else is left in the directory.
#[test]
fn the_file_of_metrics_is_replaced_at_once() {
    let root = TempDir::new().unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("page_hinting.prom");
    fs::write(&path, "page_hinting_up 1\n").unwrap();
    let mut reader = fs::File::open(&path).unwrap();

    let output = hintstat(&root, &["metrics", "--output-file", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, b"");
    let mut old = String::new();
    reader.read_to_string(&mut old).unwrap();
    assert_eq!(old, "page_hinting_up 1\n");
    let new = fs::read_to_string(&path).unwrap();
    assert!(new.contains("\npage_hinting_up 0\n"), "{new}");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Figures that can no more be read are not left in the file, either.
#[test]
fn the_file_of_metrics_never_goes_stale() {
    let root = guest_with("flush");
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("page_hinting.prom");
    fs::write(&path, "page_hinting_up 1\n").unwrap();

    let output = hintstat(&root, &["metrics", "--output-file", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let new = fs::read_to_string(&path).unwrap();
    assert!(new.contains("\npage_hinting_up 0\n"), "{new}");
}

#[test]
fn the_manual_has_each_command_exit_status_and_metric() {
    let root = TempDir::new().unwrap();
    let page = printed(&root, &["man"]);
    for command in ["status", "watch", "explain", "flush", "rehint", "metrics"] {
        assert!(page.contains(&format!("\n.SS {command}\n")), "{command}");
    }
    assert!(
        page.contains("Longest time that it takes, from 1ms"),
        "{page}"
    );
    let help = printed(&root, &["--help"]);
    for (code, text) in hintstat::exit::EXITS {
        assert!(help.contains(&format!("\n  {code}  {text}")), "{help}");
    }
    let escaped = page.replace("\\-", "-").replace("\\*(Aq", "'");
    for (code, text) in hintstat::exit::EXITS {
        assert!(
            escaped.contains(&format!("\\fB{code}\\fR\n{text}")),
            "{page}"
        );
    }
    for (name, help) in hintstat::metrics::names() {
        assert!(
            escaped.contains(&format!("\\fB{name}\\fR\n{help}")),
            "{name}"
        );
    }
}

/// The hook of qemu-guest-agent, with a program in place of hintstat that ends with `code`.
fn hook(code: i32, arguments: &[&str]) -> (Output, String) {
    let dir = TempDir::new().unwrap();
    let said = dir.path().join("said");
    let program = dir.path().join("hintstat");
    let script = format!("#!/bin/sh\necho \"$*\" >>{}\nexit {code}\n", said.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let hook =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/qemu-guest-agent/page_hinting");
    let output = Command::new(hook)
        .args(arguments)
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .output()
        .unwrap();
    (output, fs::read_to_string(said).unwrap_or_default())
}

#[test]
fn the_hook_flushes_with_a_bound_before_a_freeze_only() {
    let (output, said) = hook(0, &["freeze"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, "flush --timeout 5s\n");

    assert_eq!(hook(0, &["thaw"]).1, "");
}

/// A snapshot without a flush is larger, but good.
#[test]
fn the_hook_never_fails_a_snapshot() {
    for code in [1, 3, 4, 5] {
        let (output, _) = hook(code, &["freeze"]);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("status {code}")), "{said}");
    }
}
