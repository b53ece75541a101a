// SPDX-License-Identifier: GPL-2.0

//! The one kernel thread that does all the hinting.
//!
//! It sleeps until a free area goes over the high watermark, and every two seconds looks for what
//! stayed below. Then it hands blocks to the host until none is above the low watermark, and takes
//! back what the host has acknowledged as it goes.

use core::ffi::c_void;

use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    },
};

use crate::{
    batch::{
        self,
        Stop, //
    },
    ffi,
    policy,
    queue,
    Shared, //
};

/// The running thread. Dropping it stops the thread and waits for that.
pub(crate) struct Thread {
    /// What the thread uses; dropped after it was stopped.
    _shared: Arc<Shared>,
}

impl Thread {
    /// Starts the thread. The core must be attached as long as it runs.
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Self> {
        let data = Arc::as_ptr(&shared).cast_mut().cast::<c_void>();

        // SAFETY: `data` is valid until the thread is stopped, as the value returned here holds a
        // reference until then.
        to_result(unsafe { ffi::ph_thread_start(Some(run_raw), data) })?;
        Ok(Self { _shared: shared })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: The value exists, so the thread was started and not stopped yet.
        unsafe { ffi::ph_thread_stop() };
    }
}

/// Makes the thread look at the knobs and the free areas again.
pub(crate) fn wake() {
    // SAFETY: May be called in any context.
    unsafe { ffi::ph_thread_wake() };
}

/// # Safety
///
/// Only for [`ffi::ph_thread_start`], with the pointer of a `Shared` that outlives the thread.
unsafe extern "C" fn run_raw(data: *mut c_void) -> kernel::ffi::c_int {
    // SAFETY: By the safety requirement.
    run(unsafe { &*data.cast::<Shared>() });
    0
}

fn should_stop() -> bool {
    // SAFETY: This is the thread.
    unsafe { ffi::ph_thread_should_stop() }
}

fn wait(ms: u32) {
    // SAFETY: This is the thread, and it holds no lock.
    unsafe { ffi::ph_thread_wait(ms) };
}

fn run(shared: &Shared) {
    let mut hinting = false;
    let mut stalled = false;
    let mut looked = Instant::<Monotonic>::now();

    while !should_stop() {
        // Before anything is looked at, so that what is freed later wakes the thread.
        queue::rearm();

        while let Some(ack) = queue::reap() {
            shared.stats.acked(&ack);
        }

        let knobs = shared.knobs();
        let state = queue::State::now();
        let may = knobs.enabled() && state.has_device();
        if may && !hinting {
            let min_order = knobs.min_order().max(state.min_order());
            let rested = looked.elapsed().as_millis() >= i64::from(policy::TRICKLE_MS);

            hinting =
                batch::is_due(&knobs, min_order) || (rested && batch::is_left(&knobs, min_order));
            if hinting {
                shared.stats.woken();
            }
        }
        if may && hinting && batch::hint(&knobs, &shared.stats) == Stop::Done {
            hinting = false;
            looked = Instant::now();
        }

        let state = queue::State::now();
        if state.in_flight() && !queue::arm() {
            continue;
        }
        let now_stalled = policy::is_stalled(state.oldest_ns());
        if now_stalled != stalled {
            stalled = now_stalled;
            if stalled {
                shared.stats.stalled();
                pr_warn!("the host does not answer; hinting goes on when it does\n");
            } else {
                pr_info!("the host answers again\n");
            }
        }
        wait(if state.in_flight() {
            policy::STALL_CHECK_MS
        } else {
            policy::TRICKLE_MS
        });
    }
}
