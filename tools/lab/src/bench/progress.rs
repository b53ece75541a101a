// SPDX-License-Identifier: GPL-2.0

//! How far the run is, and how long it will still take.

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stdout};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Steps of the part that runs, and the estimates of those after it.
pub struct Progress {
    state: Mutex<State>,
    bar: Option<ProgressBar>,
}

struct State {
    part: &'static str,
    began: Instant,
    estimate: Duration,
    later: Duration,
    steps: usize,
    done: usize,
}

impl Progress {
    /// On a terminal a bar, else a line a step.
    pub fn new() -> Self {
        let bar = stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template("{bar:30} {msg}");
            bar.with_style(style.expect("the template is right"))
        });
        Progress {
            state: Mutex::new(State {
                part: "",
                began: Instant::now(),
                estimate: Duration::ZERO,
                later: Duration::ZERO,
                steps: 0,
                done: 0,
            }),
            bar,
        }
    }

    /// A part begins, and the parts after it are expected to take that long.
    pub fn begin(&self, part: &'static str, estimate: Duration, later: Duration) {
        *self.state() = State {
            part,
            began: Instant::now(),
            estimate,
            later,
            steps: 0,
            done: 0,
        };
    }

    /// How many steps the part has.
    pub fn steps(&self, steps: usize) {
        self.state().steps = steps;
    }

    /// The next step begins.
    pub fn step(&self, text: &str) {
        let mut state = self.state();
        let left = left(
            state.began.elapsed(),
            state.estimate,
            state.done,
            state.steps,
        ) + state.later;
        state.done += 1;
        let message = format!("{}: {text}; {} left", state.part, HumanDuration(left));
        match &self.bar {
            Some(bar) => {
                bar.set_length(state.steps.max(1) as u64);
                bar.set_position(state.done.saturating_sub(1) as u64);
                bar.set_message(message);
            }
            None => println!("[{}/{}] {message}", state.done, state.steps),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => println!("{text}"),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What a part still takes: first as it was estimated, then more and more as its steps
/// say that are over.
fn left(elapsed: Duration, estimate: Duration, done: usize, steps: usize) -> Duration {
    let share = match steps {
        0 => 0.0,
        _ => (done as f64 / steps as f64).min(1.0),
    };
    let by_estimate = estimate.saturating_sub(elapsed).as_secs_f64();
    let by_steps = match share {
        0.0 => by_estimate,
        _ => elapsed.as_secs_f64() * (1.0 - share) / share,
    };
    Duration::from_secs_f64(by_estimate * (1.0 - share) + by_steps * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left() {
        let s = Duration::from_secs;
        assert_eq!(left(s(0), s(100), 0, 10), s(100));
        assert_eq!(left(s(50), s(100), 5, 10), s(50));
        // Twice as slow as estimated.
        assert_eq!(left(s(180), s(100), 9, 10), s(18));
        assert_eq!(left(s(90), s(100), 10, 10), s(0));
        assert_eq!(left(s(10), s(100), 0, 0), s(90));
    }
}
