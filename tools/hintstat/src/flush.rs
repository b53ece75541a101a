// SPDX-License-Identifier: GPL-2.0

//! A flush with a time of its own, whatever the knob `flush_timeout_ms` says.

use crate::show::size;
use crate::source::Guest;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const TIMED_OUT: u8 = 2;
const NO_DEVICE: u8 = 3;

extern "C" fn nothing(_: nix::libc::c_int) {}

/// From now on, the process gets a signal after a time, which ends a write.
fn end_writes_after(timeout: Duration) -> Result<()> {
    // Without SA_RESTART.
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: The handler does nothing, which is safe in a signal's.
    unsafe { sigaction(Signal::SIGALRM, &action) }.context("SIGALRM")?;
    nix::unistd::alarm::set(u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX));
    Ok(())
}

pub fn run(guest: &Guest, timeout: Duration, rehint: bool) -> Result<ExitCode> {
    let path = guest.flush_file();
    let start = Instant::now();
    let mut file = match OpenOptions::new().write(true).open(&path) {
        Ok(file) => file,
        Err(_) if !guest.has_module() => {
            eprintln!("hintstat: the module page_hinting is not loaded");
            return Ok(NO_DEVICE.into());
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    if rehint {
        let path = guest.rehint_file();
        fs::write(&path, "1").with_context(|| path.display().to_string())?;
    }
    end_writes_after(timeout)?;

    loop {
        let Err(error) = file.write(b"1") else {
            println!("done after {:.2} s", start.elapsed().as_secs_f64());
            return Ok(ExitCode::SUCCESS);
        };
        match error.raw_os_error().map(Errno::from_raw) {
            // That was the knob's time.
            Some(Errno::ETIMEDOUT | Errno::EINTR) if start.elapsed() < timeout => {}
            Some(Errno::ETIMEDOUT | Errno::EINTR) => {
                let left = guest.snapshot().map_or_else(
                    |_| String::new(),
                    |now| {
                        format!(
                            "; {} are not hinted, {} are with the host",
                            size(now.stats.backlog_kb),
                            size(now.stats.isolated_kb)
                        )
                    },
                );
                eprintln!("hintstat: not done after {} s{left}", timeout.as_secs());
                return Ok(TIMED_OUT.into());
            }
            Some(Errno::ENODEV) => {
                eprintln!(
                    "hintstat: there is no device to hint to, or it went; see hintstat explain"
                );
                return Ok(NO_DEVICE.into());
            }
            _ => return Err(error).with_context(|| path.display().to_string()),
        }
    }
}
