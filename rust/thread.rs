// SPDX-License-Identifier: GPL-2.0

//! The one kernel thread that does all the hinting.
//!
//! It sleeps until a free area goes over the high watermark, and every two seconds looks for what
//! stayed below. Then it hands blocks to the host until none is above the low watermark, and takes
//! back what the host has acknowledged as it goes.

use core::ffi::c_void;

use kernel::{
    error::to_result,
    pr_warn_once,
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    },
};

use crate::{
    batch,
    ffi,
    policy,
    queue::{
        self,
        Attachment, //
    },
    Shared, //
};

/// The running thread. Dropping it stops the thread and waits for that.
///
/// The fields are what the thread uses; they are dropped after it was stopped.
pub(crate) struct Thread {
    _attachment: Attachment,
    _shared: Arc<Shared>,
}

/// Says that its holder runs in the module's thread.
pub(crate) struct InThread(());

impl Thread {
    /// Starts the thread.
    pub(crate) fn start(attachment: Attachment, shared: Arc<Shared>) -> Result<Self> {
        let data = Arc::as_ptr(&shared).cast_mut().cast::<c_void>();

        // SAFETY: `data` is valid until the thread is stopped, as the value returned here holds a
        // reference until then.
        to_result(unsafe { ffi::ph_thread_start(Some(run_raw), data) })?;
        Ok(Self {
            _attachment: attachment,
            _shared: shared,
        })
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
    let token = InThread(());
    let mut looked = Instant::<Monotonic>::now();
    let mut hinting = false;
    // Something was handed to the host since hinting began.
    let mut found = false;
    let mut stalled = false;
    // Enough for the watermark was there, and nothing of it could be taken: a wake-up would find
    // the same, so none is asked for until the next look.
    let mut vain = false;
    let mut due = false;

    while !should_stop() {
        let rested = looked.elapsed().as_millis() >= i64::from(policy::TRICKLE_MS);

        if rested {
            vain = false;
        }
        // Before anything is looked at, so that what is freed later wakes the thread. Not while
        // it hints: the host's answers drive it then.
        if !hinting && !vain {
            queue::rearm();
        }

        while let Some(ack) = queue::reap() {
            shared.stats.acked(&ack);
        }

        let knobs = shared.knobs();
        let state = queue::State::now();
        let may = knobs.enabled() && state.has_device();
        if may && !hinting {
            let min_order = knobs.min_order().max(state.min_order());

            due = !vain && batch::is_due(&knobs, min_order);
            hinting = due || (rested && batch::is_left(&knobs, min_order));
            found = false;
        }
        if may && hinting {
            let pass = batch::hint(&knobs, &shared.stats, &token);

            if pass.submitted && !found {
                shared.stats.woken();
                found = true;
            }
            if !pass.full {
                hinting = false;
                vain = due && !found;
                looked = Instant::now();
                // What was freed meanwhile did not wake the thread.
                continue;
            }
        } else if rested {
            looked = Instant::now();
        }

        let state = queue::State::now();
        if state.in_flight() && !queue::arm() {
            continue;
        }
        if policy::is_stalled(state.oldest_ns()) != stalled {
            stalled = !stalled;
            if stalled {
                shared.stats.stalled();
                queue::trace_stall(state.oldest_ns());
                pr_warn_once!("the host does not answer; hinting goes on when it does\n");
            }
        }
        wait(if state.in_flight() {
            policy::STALL_CHECK_MS
        } else {
            policy::TRICKLE_MS
        });
    }
}
