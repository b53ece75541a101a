// SPDX-License-Identifier: GPL-2.0

//! The one kernel thread that does all the hinting.
//!
//! It asks [`crate::machine`] what to do, and does it. Nothing is decided here.

use core::ffi::c_void;

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    time::{
        Instant,
        Monotonic, //
    },
};

use crate::{
    batch,
    engine,
    ffi,
    knobs::{
        self,
        Polled,
        Status, //
    },
    levels,
    machine::{
        self,
        Action,
        Device,
        Input, //
    },
    pages_to_kb,
    policy,
    queue::{
        self,
        Attachment, //
    },
    trace,
    zone::{
        self,
        Zone, //
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

impl InThread {
    /// A test runs while there is no thread.
    #[cfg(page_hinting_kunit)]
    pub(crate) fn for_test() -> Self {
        Self(())
    }
}

/// The machine, with its own memory for each zone that there may be.
pub(crate) type Machine = machine::Machine<KVec<machine::Zone<KVVec<u64>>>>;

/// A machine that has seen nothing. Allocates all that it will ever need.
pub(crate) fn new_machine() -> Result<Machine> {
    let pages = Zone::all().fold(0, |sum: u64, zone| sum.saturating_add(zone.managed()));
    let words = levels::words(pages_to_kb(pages));
    let mut zones = KVec::with_capacity(zone::slots(), GFP_KERNEL)?;

    for _ in 0..zone::slots() {
        let words = KVVec::from_elem(0, words, GFP_KERNEL)?;
        zones.push(machine::Zone::new(words), GFP_KERNEL)?;
    }
    Ok(Machine::new(zones, 0, queue::host_asks()))
}

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
    run(unsafe { &*data.cast::<Shared>() }, &InThread(()));
    0
}

fn run(shared: &Shared, token: &InThread) {
    let Some(machine) = shared.machine.lock().take() else {
        return;
    };
    let mut hinter = Hinter {
        shared,
        token,
        machine,
        started: Instant::now(),
        oldest_ns: 0,
        status: None,
    };

    // SAFETY: The token says that this is the thread. It holds no lock.
    while !unsafe { ffi::ph_thread_should_stop() } {
        hinter.step();
    }
}

/// What the thread works with.
struct Hinter<'a> {
    shared: &'a Shared,
    token: &'a InThread,
    machine: Machine,
    started: Instant<Monotonic>,
    /// How long the host had had the oldest request when the thread slept last, in nanoseconds.
    oldest_ns: u64,
    /// The status that was last told.
    status: Option<Status>,
}

impl Hinter<'_> {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(0)
    }

    /// Does the next thing.
    fn step(&mut self) {
        while self.shared.engine.reap(&self.shared.stats, self.token) {}

        match self.machine.next(&self.input()) {
            Action::Watermark(watermark) => queue::set_watermark(watermark),
            Action::Rearm => queue::rearm(),
            Action::Drain => zone::drain(),
            Action::Forget => self.shared.rehint(),
            Action::Look => self.look(),
            Action::Request => {
                let outcome = batch::request(&mut self.machine, self.shared, self.token);

                if self.machine.requested(outcome, self.now_ns()) {
                    self.shared.stats.wakeups.add(1u64, Relaxed);
                }
            }
            Action::Passed => knobs::notify(self.shared, Polled::Backlog),
            Action::Flushed { flush, done } => self.shared.flushes.finished(flush, done),
            Action::Sleep { ms } => self.sleep(ms),
        }
    }

    fn input(&self) -> Input {
        let state = self.shared.engine.state();

        Input {
            now_ns: self.now_ns(),
            knobs: self.shared.knobs(),
            device: state.has_device().then_some(Device {
                min_order: state.min_order(),
                in_flight: state.is_busy(),
            }),
            flush: self.shared.flushes.wanted(),
            asks: queue::host_asks(),
        }
    }

    fn look(&mut self) {
        let now_ns = self.now_ns();

        for zone in Zone::all() {
            zone.view(self.token, |view| {
                self.machine.look(zone.slot(), view, now_ns)
            });
        }
    }

    /// Sleeps, unless the host has answered meanwhile.
    fn sleep(&mut self, ms: u32) {
        let state = self.shared.engine.state();

        self.shared.kept.store(self.machine.kept(), Relaxed);
        if state.is_busy() && !engine::arm(self.token) {
            return;
        }
        self.notice(state.oldest_ns);
        // SAFETY: The token says that this is the thread. It holds no lock.
        unsafe { ffi::ph_thread_wait(ms) };
    }

    /// Tells those who watch what has changed.
    fn notice(&mut self, oldest_ns: u64) {
        if policy::is_stalled(oldest_ns) && !policy::is_stalled(self.oldest_ns) {
            let stalls = &self.shared.stats.stalls;

            // (pr_warn_once!() came after Linux 6.18.)
            if stalls.load(Relaxed) == 0 {
                pr_warn!("the host does not answer; hinting goes on when it does\n");
            }
            stalls.add(1u64, Relaxed);
            trace::stall(oldest_ns);
        }
        self.oldest_ns = oldest_ns;

        let (status, _) = Status::now(self.shared);
        if self.status != Some(status) {
            self.status = Some(status);
            knobs::notify(self.shared, Polled::Status);
        }
    }
}
