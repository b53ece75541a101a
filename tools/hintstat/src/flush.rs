// SPDX-License-Identifier: GPL-2.0

//! A flush with a limit of its own, whatever the knob `flush_timeout_ms` is.

use crate::exit::Exit;
use crate::show::size;
use crate::source::Guest;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

/// Time between two signals. One is not enough: it may come before the write.
const AGAIN: Duration = Duration::from_millis(20);

extern "C" fn nothing(_: nix::libc::c_int) {}

/// Signals end this process's writes after `timeout`, until the timer is dropped.
fn end_writes_after(timeout: Duration) -> Result<Timer> {
    // Without SA_RESTART.
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: The handler does nothing, which is safe in a signal's.
    unsafe { sigaction(Signal::SIGALRM, &action) }.context("SIGALRM")?;
    let event = SigEvent::new(SigevNotify::SigevSignal {
        signal: Signal::SIGALRM,
        si_value: 0,
    });
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event).context("timer")?;
    timer
        .set(
            Expiration::IntervalDelayed(timeout.into(), AGAIN.into()),
            TimerSetTimeFlags::empty(),
        )
        .context("timer")?;
    Ok(timer)
}

/// What is left of a flush, if that can be told.
fn left(guest: &Guest) -> String {
    guest.snapshot().map_or_else(
        |_| String::new(),
        |now| {
            format!(
                "; {} are not hinted, {} are in flight",
                size(now.stats.backlog_kb),
                size(now.stats.isolated_kb)
            )
        },
    )
}

pub fn run(guest: &Guest, timeout: Duration) -> Result<Exit> {
    let path = guest.flush_file();
    let start = Instant::now();
    let mut file = OpenOptions::new()
        .write(true)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    let _timer = end_writes_after(timeout)?;

    loop {
        let Err(error) = file.write(b"1") else {
            println!("done after {:.2} s", start.elapsed().as_secs_f64());
            return Ok(Exit::Done);
        };
        match error.raw_os_error().map(Errno::from_raw) {
            // That was the knob's time.
            Some(Errno::ETIMEDOUT | Errno::EINTR) if start.elapsed() < timeout => {}
            Some(Errno::ETIMEDOUT | Errno::EINTR) => {
                eprintln!(
                    "hintstat: not done after {}{}",
                    humantime::format_duration(timeout),
                    left(guest)
                );
                return Ok(Exit::TimedOut);
            }
            Some(Errno::ENODEV) if guest.has_module() => {
                eprintln!("hintstat: there is no device to hint to; see hintstat explain");
                return Ok(Exit::NoDevice);
            }
            _ => return Err(error).with_context(|| path.display().to_string()),
        }
    }
}
