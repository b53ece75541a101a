// SPDX-License-Identifier: GPL-2.0

//! Ctrl-C, SIGTERM and SIGHUP: noted here, asked for wherever the lab waits, and
//! carried up as an error, so that every guest on the way is stopped by its
//! owner's drop.

use anyhow::Context;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Longest time that an interrupt goes unnoticed.
pub const NOTICE: Duration = Duration::from_millis(50);

/// The user ended the run.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; the guest has been stopped")
    }
}

impl std::error::Error for Interrupted {}

/// Installs the handler, once in a process.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))
        .context("cannot install a signal handler")
}

/// Fails once the user has interrupted.
pub fn check() -> Result<(), Interrupted> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        Err(Interrupted)
    } else {
        Ok(())
    }
}

/// Sleeps until `end`, or fails soon after an interrupt.
pub fn sleep_until(end: Instant) -> Result<(), Interrupted> {
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        sleep(left.min(NOTICE));
    }
}
