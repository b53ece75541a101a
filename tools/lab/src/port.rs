// SPDX-License-Identifier: GPL-2.0

//! The virtio port between the lab and its guest.
//!
//! The lab sends shell commands, a line each. The guest sends their output as it
//! comes, and between it events: JSON objects, a line each.

use crate::interrupt;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Name of the port in the guest.
pub const NAME: &str = "org.page_hinting.lab";

/// A line from the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it came, on the host's monotonic clock.
    pub at: Instant,
    /// Without its end.
    pub text: String,
}

/// What the guest reports of itself.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// It takes commands.
    Ready { kernel: String, uptime_s: f64 },
    /// A command has ended with this status.
    Done { status: i32 },
    /// The answer to the command `state`.
    State(State),
    /// The guest asks the host for something, and waits for a line.
    Host { request: String },
}

/// The module's files, and the parameters of mm/page_reporting.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// /sys/kernel/mm/page_hinting, `status` among them; empty without the module.
    pub knobs: BTreeMap<String, String>,
    /// /sys/kernel/mm/page_hinting/stats.
    pub stats: BTreeMap<String, String>,
    /// /sys/module/page_reporting/parameters.
    pub page_reporting: BTreeMap<String, String>,
}

impl State {
    /// A number among the knobs.
    pub fn knob(&self, name: &str) -> Option<u64> {
        self.knobs.get(name)?.parse().ok()
    }

    /// A number among the counters.
    pub fn stat(&self, name: &str) -> Option<u64> {
        self.stats.get(name)?.parse().ok()
    }

    /// The module's status, if it is loaded.
    pub fn status(&self) -> Option<&str> {
        self.knobs.get("status").map(String::as_str)
    }
}

/// Why nothing came from the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Silence {
    /// The time was up.
    TimedOut,
    /// The guest is gone.
    Gone,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Silence::TimedOut => "the guest did not answer within its time limit",
            Silence::Gone => "the guest went down",
        })
    }
}

impl std::error::Error for Silence {}

/// The host's end of the port.
pub struct Port {
    stream: UnixStream,
    lines: Receiver<Line>,
}

impl Port {
    /// Takes over the host's end of the port.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let reader = BufReader::new(stream.try_clone()?);
        let (sender, lines) = channel();
        thread::Builder::new()
            .name("port".into())
            .spawn(move || {
                for text in reader.split(b'\n') {
                    let at = Instant::now();
                    let Ok(text) = text else { break };
                    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
                    if sender.send(Line { at, text }).is_err() {
                        break;
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(Port { stream, lines })
    }

    /// Sends a line, and says when it went out.
    pub fn send(&mut self, line: &str) -> Result<Instant> {
        let at = Instant::now();
        match self.stream.write_all(format!("{line}\n").as_bytes()) {
            Ok(()) => Ok(at),
            Err(_) => bail!(Silence::Gone),
        }
    }

    /// The next line of the guest; fails with a [`Silence`] or when interrupted.
    pub fn line(&self, end: Instant) -> Result<Line> {
        loop {
            interrupt::check()?;
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(interrupt::NOTICE)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => bail!(Silence::Gone),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => bail!(Silence::TimedOut),
                Err(RecvTimeoutError::Timeout) => (),
            }
        }
    }

    /// Waits for the line `text`, and says when it came.
    pub fn wait_for(&self, text: &str, limit: Duration) -> Result<Instant> {
        let end = Instant::now() + limit;
        loop {
            let line = self.line(end)?;
            if line.text == text {
                return Ok(line.at);
            }
            if let Some(Event::Done { status }) = event(&line.text) {
                bail!("the guest's program ended with status {status} before it said \"{text}\"");
            }
        }
    }

    /// Waits until the guest takes commands: its kernel's release, and its uptime in seconds.
    pub fn wait_ready(&self, limit: Duration) -> Result<(String, f64)> {
        let end = Instant::now() + limit;
        loop {
            if let Some(Event::Ready { kernel, uptime_s }) = event(&self.line(end)?.text) {
                return Ok((kernel, uptime_s));
            }
        }
    }

    /// Waits until the running command has ended, passes its output on, and
    /// returns its exit status.
    pub fn finish(&self, limit: Duration, mut output: impl FnMut(String)) -> Result<i32> {
        let end = Instant::now() + limit;
        loop {
            let line = self.line(end)?;
            match event(&line.text) {
                Some(Event::Done { status }) => return Ok(status),
                _ if line.text.is_empty() => (),
                _ => output(line.text),
            }
        }
    }

    /// Runs a command in the guest: its exit status and its output.
    pub fn call(&mut self, command: &str, limit: Duration) -> Result<(i32, Vec<String>)> {
        self.send(command)?;
        let mut output = Vec::new();
        let status = self.finish(limit, |line| output.push(line))?;
        Ok((status, output))
    }

    /// Runs a command that has to succeed: its output.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<Vec<String>> {
        let (status, output) = self.call(command, limit)?;
        ensure!(
            status == 0,
            "`{command}` failed in the guest, status {status}:\n{}",
            output.join("\n")
        );
        Ok(output)
    }

    /// Asks for the module's knobs and counters.
    pub fn state(&mut self, limit: Duration) -> Result<State> {
        let (_, output) = self.call("state", limit)?;
        match output.iter().find_map(|line| event(line)) {
            Some(Event::State(state)) => Ok(state),
            _ => bail!(
                "the guest did not report its state, but: {}",
                output.join("\n")
            ),
        }
    }

    /// The time from a command to its answer, the median of several: what comes
    /// from the guest has been under way for less than that.
    pub fn round_trip(&mut self, limit: Duration) -> Result<Duration> {
        let mut times = Vec::new();
        for _ in 0..15 {
            let sent = self.send(":")?;
            self.finish(limit, drop)?;
            times.push(sent.elapsed());
        }
        times.sort();
        Ok(times[times.len() / 2])
    }
}

/// What a line of the guest reports, if it is an event.
pub fn event(line: &str) -> Option<Event> {
    line.starts_with("{\"event\":")
        .then(|| serde_json::from_str(line).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (Port, UnixStream) {
        let (host, guest) = UnixStream::pair().unwrap();
        (Port::new(host).unwrap(), guest)
    }

    fn kind(error: &anyhow::Error) -> Option<&Silence> {
        error.downcast_ref()
    }

    #[test]
    fn a_command_returns_its_output_and_status() {
        let (mut port, mut guest) = pair();
        guest
            .write_all(b"hello\r\n\n{\"event\":\"done\",\"status\":3}\nnext\n")
            .unwrap();
        let (status, output) = port.call("echo hello", SOON).unwrap();
        assert_eq!((status, output), (3, vec!["hello".to_owned()]));
        let mut sent = String::new();
        BufReader::new(guest).read_line(&mut sent).unwrap();
        assert_eq!(sent, "echo hello\n");
    }

    #[test]
    fn state_is_read() {
        let (mut port, mut guest) = pair();
        guest
            .write_all(
                b"{\"event\":\"state\",\"knobs\":{\"status\":\"idle\",\"batch_kb\":\"65536\"},\
                  \"stats\":{\"isolated_peak_kb\":\"4096\"},\"page_reporting\":{}}\n\
                  {\"event\":\"done\",\"status\":0}\n",
            )
            .unwrap();
        let state = port.state(SOON).unwrap();
        assert_eq!(state.status(), Some("idle"));
        assert_eq!(state.knob("batch_kb"), Some(65536));
        assert_eq!(state.stat("isolated_peak_kb"), Some(4096));
        assert_eq!(state.stat("hinted_kb"), None);
    }

    #[test]
    fn ready_is_found_after_other_lines() {
        let (port, mut guest) = pair();
        guest
            .write_all(b"x\n{\"event\":\"ready\",\"kernel\":\"7.3.4\",\"uptime_s\":1.5}\n")
            .unwrap();
        assert_eq!(port.wait_ready(SOON).unwrap(), ("7.3.4".to_owned(), 1.5));
    }

    #[test]
    fn a_guest_that_hangs_or_dies_is_told_apart() {
        let (port, guest) = pair();
        let error = port.wait_ready(Duration::from_millis(20)).unwrap_err();
        assert_eq!(kind(&error), Some(&Silence::TimedOut));
        drop(guest);
        let error = port.wait_ready(SOON).unwrap_err();
        assert_eq!(kind(&error), Some(&Silence::Gone));
    }

    #[test]
    fn a_program_that_ends_early_is_not_waited_for() {
        let (port, mut guest) = pair();
        guest
            .write_all(b"memhog: mmap: no memory\n{\"event\":\"done\",\"status\":1}\n")
            .unwrap();
        let error = port.wait_for("touched", SOON).unwrap_err();
        assert!(error.to_string().contains("status 1"), "{error}");
    }
}
