// SPDX-License-Identifier: GPL-2.0

//! Flushes: writers that wait until all that is free has been hinted.

use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::msecs_to_jiffies, //
};

/// What the writers ask for and the thread has done.
///
/// Flushes are numbered; one that the thread has finished finishes those before it, too.
#[derive(Default)]
struct State {
    /// The latest that was asked for.
    asked: u64,
    /// The latest that is done.
    done: u64,
    /// The latest that was given up because there is no device.
    failed: u64,
    /// Writers that wait.
    waiting: u32,
    /// The module goes.
    stopping: bool,
}

/// The flushes under way.
#[pin_data]
pub(crate) struct Flushes {
    #[pin]
    state: Mutex<State>,
    #[pin]
    news: CondVar,
}

impl Flushes {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_mutex!(State::default()),
            news <- new_condvar!(),
        })
    }

    /// Asks for a flush, calls `wake` and waits.
    ///
    /// `ETIMEDOUT` if it took longer than `timeout_ms` milliseconds, `ERESTARTSYS` on a signal, and
    /// `ENODEV` if there is no device any more or the module goes.
    pub(crate) fn flush(&self, timeout_ms: u64, wake: impl FnOnce()) -> Result {
        let mut state = self.state.lock();
        let mut jiffies = msecs_to_jiffies(u32::try_from(timeout_ms).unwrap_or(u32::MAX));

        state.asked += 1;
        state.waiting += 1;
        let flush = state.asked;
        wake();

        let result = loop {
            if state.done >= flush {
                break Ok(());
            }
            if state.stopping || state.failed >= flush {
                break Err(ENODEV);
            }
            match self.news.wait_interruptible_timeout(&mut state, jiffies) {
                CondVarTimeoutResult::Woken { jiffies: left } => jiffies = left,
                _ if state.done >= flush => break Ok(()),
                CondVarTimeoutResult::Timeout => break Err(ETIMEDOUT),
                // The freezer interrupts too, and nobody has to hear of that.
                CondVarTimeoutResult::Signal { .. } => break Err(ERESTARTSYS),
            }
        };
        state.waiting -= 1;
        result
    }

    /// For the thread: the latest flush that somebody waits for, if any.
    pub(crate) fn wanted(&self) -> Option<u64> {
        let state = self.state.lock();
        let over = state.done.max(state.failed);

        (state.waiting > 0 && state.asked > over && !state.stopping).then_some(state.asked)
    }

    /// For the thread: `flush` and those before it are done; or not to be had, as there is no
    /// device.
    pub(crate) fn finished(&self, flush: u64, done: bool) {
        let mut state = self.state.lock();

        if done {
            state.done = flush;
        } else {
            state.failed = flush;
        }
        self.news.notify_all();
    }

    /// Ends all flushes, and any that is asked for after this, with `ENODEV`.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.news.notify_all();
    }
}
