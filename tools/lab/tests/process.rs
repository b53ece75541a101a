// SPDX-License-Identifier: GPL-2.0

//! The lab with a program in QEMU's place: what becomes of it when the lab ends.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

/// Says that it is QEMU 7.2, then notes its pid and never answers.
const SILENT: &str = r#"#!/bin/sh
case $1 in --version) echo "QEMU emulator version 7.2.0"; exit ;; esac
echo $$ > "${0%/*}/pid.new"
mv "${0%/*}/pid.new" "${0%/*}/pid"
exec sleep 600
"#;

/// One test at a time: a file that another thread's child has inherited open for
/// writing cannot be executed.
static ONE: Mutex<()> = Mutex::new(());

/// A directory with all that the lab wants to see.
fn scene(qemu: &str) -> (TempDir, MutexGuard<'static, ()>) {
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut elf = vec![0; 0x40];
    elf[..5].copy_from_slice(b"\x7fELF\x02");
    fs::write(path.join("busybox"), elf).unwrap();
    fs::write(path.join("bzImage"), "").unwrap();
    fs::write(path.join("memhog"), "").unwrap();
    fs::write(path.join("qemu"), qemu).unwrap();
    fs::set_permissions(path.join("qemu"), fs::Permissions::from_mode(0o755)).unwrap();
    (dir, guard)
}

fn lab(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .args(["demo", "--upstream", "--mem", "512", "--touch", "16"])
        .args(["--kernel", "bzImage", "--selftests", ".", "--out", "out"])
        .args(["--busybox", "./busybox", "--qemu", "./qemu"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts the lab, and waits until its QEMU runs: the lab, and QEMU's pid.
fn start(dir: &Path) -> (Child, i32) {
    let child = lab(dir).spawn().unwrap();
    let end = Instant::now() + LIMIT;
    while !dir.join("pid").exists() && Instant::now() < end {
        sleep(Duration::from_millis(10));
    }
    let pid = fs::read_to_string(dir.join("pid")).expect("QEMU was started");
    (child, pid.trim().parse().unwrap())
}

fn is_gone_soon(pid: i32) -> bool {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => sleep(Duration::from_millis(10)),
            _ => return true,
        }
    }
    false
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn qemu_dies_with_a_lab_that_is_killed() {
    let (dir, _guard) = scene(SILENT);
    let (mut child, qemu) = start(dir.path());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_gone_soon(qemu));
}

#[test]
fn ctrl_c_ends_qemu_and_says_so() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (dir, _guard) = scene(SILENT);
        let (child, qemu) = start(dir.path());
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("interrupted"),
            "{}",
            stderr(&output)
        );
        assert!(is_gone_soon(qemu));
    }
}

#[test]
fn what_a_failing_qemu_says_is_shown() {
    let script = SILENT.replace("exec sleep 600", "echo kaputt >&2; exit 1");
    let (dir, _guard) = scene(&script);
    let output = lab(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("refuses to start"), "{text}");
    assert!(text.contains("kaputt"), "{text}");
}

#[test]
fn a_qemu_that_is_too_old_or_missing_is_refused() {
    let (dir, _guard) = scene(&SILENT.replace("7.2.0", "7.1.0 (Debian)"));
    let output = lab(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("version 7.1, too old"),
        "{}",
        stderr(&output)
    );

    fs::remove_file(dir.path().join("qemu")).unwrap();
    let output = lab(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("apt-get install qemu-system-x86"), "{text}");
}

/// `lab test` with two guests at a time, and the pids of both of its QEMUs.
fn start_two(dir: &Path) -> (Child, Vec<i32>) {
    let selftests = dir.join("selftests");
    fs::create_dir(&selftests).unwrap();
    fs::write(selftests.join("scenarios"), "balloon: a.sh\nshuffle: a.sh").unwrap();
    fs::write(selftests.join("a.sh"), "").unwrap();
    fs::set_permissions(selftests.join("a.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("m.ko"), "vermagic=7.3.4 \0").unwrap();

    let child = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args([
            "test",
            "--scenario",
            "every",
            "--jobs",
            "2",
            "--kernel",
            "bzImage",
            "--module",
            "m.ko",
        ])
        .args(["--selftests", "selftests", "--out", "out"])
        .args(["--busybox", "./busybox", "--qemu", "./qemu"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + LIMIT;
    let mut pids = Vec::new();
    while pids.len() < 2 && Instant::now() < end {
        sleep(Duration::from_millis(10));
        let text = fs::read_to_string(dir.join("pids")).unwrap_or_default();
        pids = text.lines().flat_map(str::parse).collect();
    }
    assert_eq!(pids.len(), 2, "QEMUs were started");
    (child, pids)
}

#[test]
fn two_guests_end_with_the_lab() {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let (dir, _guard) = scene(&SILENT.replace("exec", "echo $$ >> \"${0%/*}/pids\"\nexec"));
        let (child, pids) = start_two(dir.path());
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        if signal == Signal::SIGINT {
            assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
            assert!(!String::from_utf8_lossy(&output.stdout).contains("not ok"));
        }
        for pid in pids {
            assert!(is_gone_soon(pid));
        }
    }
}
