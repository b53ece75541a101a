// SPDX-License-Identifier: GPL-2.0

//! `lab shell`: the guest's console on the terminal.

use crate::cli::ShellArgs;
use crate::initramfs::{self, Content};
use crate::qemu::{BALLOON, Config, Console, Guest, Hardware, HostPages};
use anyhow::Result;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use std::io::stdin;

/// Runs a guest until its shell is left.
pub fn run(args: &ShellArgs) -> Result<bool> {
    args.validate()?;
    let initramfs = initramfs::build(&Content {
        busybox: &args.guest.busybox,
        module: Some(&args.module),
        selftests: args.selftests.is_dir().then_some(&*args.selftests),
    })?;
    let _settings = TerminalSettings::keep();
    let mut guest = Guest::start(&Config {
        args: &args.guest,
        mem_mib: args.mem,
        hardware: Hardware::PLAIN,
        job: "shell",
        devices: &[BALLOON],
        kernel_args: "quiet",
        console: Console::Terminal,
        host_pages: HostPages::Transparent,
        patches_code: false,
        initramfs: &initramfs,
        cgroup: None,
        disk: None,
        snapshots: None,
        plugin: None,
        log: args.out.join("guest.log"),
    })?;
    Ok(guest.wait()?.success())
}

/// Puts the terminal back as it was, however QEMU ended.
struct TerminalSettings(Option<Termios>);

impl TerminalSettings {
    fn keep() -> Self {
        TerminalSettings(tcgetattr(stdin()).ok())
    }
}

impl Drop for TerminalSettings {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, settings);
        }
    }
}
