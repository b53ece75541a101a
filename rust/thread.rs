// SPDX-License-Identifier: GPL-2.0

//! The one kernel thread that does all the hinting.
//!
//! It sleeps until a free area goes over the high watermark, and looks for what stayed below soon
//! after that and every two seconds. Then it hands blocks to the host until none is above the low
//! watermark, or no more may be hinted as it is likely to be needed again, and takes back what the
//! host has acknowledged as it goes.

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
    batch::{
        self,
        Pass,
        Plan, //
    },
    ffi,
    kb_to_pages,
    knobs::{
        self,
        Status, //
    },
    pacing::{
        self,
        Decision,
        Look,
        Pacing,
        Terms, //
    },
    policy::{
        self,
        Knob,
        Knobs, //
    },
    price::Price,
    queue::{
        self,
        Attachment, //
    },
    zone,
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

/// Milliseconds that have passed.
fn passed_ms(since: &Instant<Monotonic>) -> u32 {
    u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX)
}

/// Whether so many milliseconds have passed.
fn is_over(since: &Instant<Monotonic>, ms: u32) -> bool {
    passed_ms(since) >= ms
}

fn run(shared: &Shared) {
    let token = InThread(());
    let mut turns = Turns::new();

    while !should_stop() {
        if let Some(ms) = turns.take(shared, &token) {
            wait(ms);
        }
    }
}

/// What to do about blocks that the watermark does not tell of, or that may still merge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Leave,
    /// Take what is there, and no more.
    Once,
    /// And once more after that, if anything is.
    Again,
}

/// What the thread remembers from one turn to the next.
struct Turns {
    started: Instant<Monotonic>,
    pacing: Pacing,
    /// What the pacing has been told so far is of blocks of these orders: the granule's, and the
    /// lowest that is hinted.
    paced_orders: (u32, u32),
    price: Price,
    /// Pages handed to the host since the thread started.
    submitted: u64,
    /// Pages that the guest has.
    managed: u64,
    /// When it last looked for what is below the watermark.
    looked: Instant<Monotonic>,
    /// It hands over what there is.
    hinting: bool,
    /// Something was handed over since that began.
    found: bool,
    /// Of what there is only the blocks of the largest order.
    largest: bool,
    /// It was the watermark that had it begin, if not with its first blocks.
    told: bool,
    /// Since when there may be a rest of what the watermark has told, and after how many
    /// milliseconds to look for it.
    follow_up: Option<(Instant<Monotonic>, u32)>,
    /// When the last pass found something, after much was handed over: the look comes soon after
    /// that.
    much: Option<Instant<Monotonic>>,
    /// Enough for the watermark is there in smaller blocks, which wait for that. Each block that is
    /// freed would wake the thread for them.
    smaller: bool,
    /// When the per-CPU lists were drained last to follow up, and what had been handed over then.
    drained: Option<(Instant<Monotonic>, u64)>,
    /// Enough for the watermark was there, and nothing of it could be taken: a wake-up would find
    /// the same, so none is asked for until the next look.
    vain: bool,
    /// Memory is held back. A wake-up by the watermark would find the same, too.
    paced: bool,
    /// A cycle goes on.
    busy: bool,
    stalled: bool,
    /// The log says already that the host does not answer.
    warned: bool,
    status: Option<Status>,
}

impl Turns {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            pacing: Pacing::new(),
            paced_orders: (0, 0),
            price: Price::new(),
            submitted: 0,
            managed: 0,
            looked: Instant::now(),
            hinting: false,
            found: false,
            largest: false,
            told: false,
            follow_up: None,
            much: None,
            smaller: false,
            drained: None,
            vain: false,
            paced: false,
            busy: false,
            stalled: false,
            warned: false,
            status: None,
        }
    }

    /// Does what there is to do. Returns how long to sleep after it, in milliseconds; [`None`] if
    /// there is more to do.
    fn take(&mut self, shared: &Shared, token: &InThread) -> Option<u32> {
        let rested = is_over(&self.looked, policy::TRICKLE_MS);
        // Taken, so that it does not go on by itself for ever.
        let follows = self.follow_up_left_ms() == Some(0);
        if follows {
            self.follow_up = None;
            self.much = None;
        }
        let rest = if follows && self.smaller {
            // There were enough that waited: more may be on the way.
            Rest::Again
        } else if follows || rested {
            Rest::Once
        } else {
            Rest::Leave
        };

        if rested {
            self.vain = false;
        }
        if self.follow_up.is_none() {
            self.smaller = false;
        }
        if follows {
            // What goes on has not come to an end, as more and more is freed or the host is slow.
            self.largest = false;
        }
        // Before anything is looked at, so that what is freed later wakes the thread. Not while
        // it hints: the host's answers drive it then.
        if !self.hinting && !self.vain && !self.paced && !self.smaller {
            queue::rearm();
        }

        while let Some(ack) = queue::reap() {
            shared.stats.acked(&ack);
        }

        let knobs = shared.knobs();
        let state = queue::State::now();
        let flush = shared.flushes.wanted();
        if let (Some(flush), false) = (flush, state.has_device()) {
            shared.flushes.finished(flush, false);
        }
        if rested && !self.hinting {
            self.looked = Instant::now();
        }

        let mut again_ms = policy::TRICKLE_MS;
        if state.has_device() && (knobs.enabled() || flush.is_some()) {
            if rested && !self.hinting {
                self.rest(&knobs);
            }

            let plan = Plan::new(&knobs, &state);
            let decision = self.look(shared, &plan, &knobs, token);
            self.busy = decision.busy;
            if rest == Rest::Once && !self.hinting {
                self.drain(rested);
            }
            let plan = if flush.is_some() {
                self.pace(false);
                plan.all()
            } else {
                self.pace(decision.paced);
                plan.up_to(decision.pages)
            };

            if self.paced {
                again_ms = u32::try_from(decision.again_ns / 1_000_000)
                    .unwrap_or(u32::MAX)
                    .clamp(1, policy::TRICKLE_MS);
            }
            match self.hint(shared, &knobs, &plan, rest, flush, token) {
                Some(Pass::Failed) if flush.is_some() => again_ms = policy::RETRY_MS,
                // That is over soon.
                Some(Pass::Held) => again_ms = policy::RETRY_MS,
                // All that may be hinted now is, or it is less than a block, or it can't be had:
                // it is time that makes it more.
                Some(Pass::Over | Pass::Failed) if self.paced => {}
                // What was freed meanwhile did not wake the thread.
                Some(Pass::Over | Pass::Failed) => return None,
                Some(Pass::Full) | None => {}
            }
        } else {
            // What happens while nothing is hinted is no news to the pacing.
            self.pacing = Pacing::new();
            self.pace(false);
            self.follow_up = None;
            self.much = None;
        }
        shared.pacing.paced.store(self.paced.into(), Relaxed);

        let state = queue::State::now();
        if state.in_flight() && !queue::arm() {
            return None;
        }
        self.notice(shared, &state);
        if let Some(left_ms) = self.follow_up_left_ms() {
            again_ms = again_ms.min(left_ms.max(1));
        }
        Some(if state.in_flight() {
            policy::STALL_CHECK_MS.min(again_ms)
        } else {
            again_ms
        })
    }

    /// Memory is held back from now on, or not.
    fn pace(&mut self, paced: bool) {
        // The watermark was not to wake the thread; it is again, before anything is looked at.
        if self.paced && !paced && !self.hinting {
            queue::rearm();
        }
        self.paced = paced;
    }

    /// Asks the pacing how much may be hinted.
    fn look(&mut self, shared: &Shared, plan: &Plan, knobs: &Knobs, token: &InThread) -> Decision {
        let free = batch::Free::now(plan, token);
        let order = knobs.granule_order();
        let price_ns = self.price.ns(order);

        self.managed = free.managed;
        // Numbers of other blocks can't be compared with those before.
        if self.paced_orders != (order, plan.min_order()) {
            self.paced_orders = (order, plan.min_order());
            self.pacing = Pacing::new();
        }
        let decision = self.pacing.look(
            &Look {
                now_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(0),
                reused: queue::reused() >> order,
                hinted: self.submitted,
                free: free.total,
                backlog: free.backlog,
                backlog_min: free.backlog_min,
            },
            &Terms {
                budget_permille: knobs.get(Knob::ReuseBudgetPermille),
                granule_pages: 1 << order,
                price_ns,
                block_pages: 1 << zone::MAX_PAGE_ORDER,
                cycle_pages: kb_to_pages(pacing::CYCLE_KB),
            },
        );

        shared.pacing.price_ns.store(price_ns, Relaxed);
        shared
            .pacing
            .balance_us
            .store(self.pacing.balance_ns() / 1000, Relaxed);
        decision
    }

    /// What is done now and then, when there is nothing urgent.
    fn rest(&mut self, knobs: &Knobs) {
        if knobs.get(Knob::ReuseBudgetPermille) != 0 && self.submitted != 0 {
            self.price.probe(knobs.granule_order());
        }
    }

    /// Has it look for a rest after so long, if it is not to sooner.
    fn follow_up_in(&mut self, ms: u32) {
        if self.follow_up_left_ms().is_none_or(|left_ms| left_ms > ms) {
            self.follow_up = Some((Instant::now(), ms));
        }
    }

    /// In how many milliseconds it is to look for a rest.
    fn follow_up_left_ms(&self) -> Option<u32> {
        let left = |(since, ms)| ms - passed_ms(&since).min(ms);
        let soon = self.much.map(|since| left((since, policy::DRAIN_SOON_MS)));

        [self.follow_up.map(left), soon].into_iter().flatten().min()
    }

    /// Drains the per-CPU lists: what they hold is free, and at rest nobody needs it there. To
    /// follow up, if they were a moment ago, a moment later.
    fn drain(&mut self, rested: bool) {
        let passed_ms = self
            .drained
            .map_or(u32::MAX, |(since, _)| passed_ms(&since));
        let wait_ms = match (self.busy, rested) {
            (true, _) => policy::DRAIN_BUSY_MS,
            (false, true) => 0,
            (false, false) => policy::DRAIN_MS,
        };

        if passed_ms >= wait_ms || (!self.busy && self.is_much()) {
            zone::drain();
            // One at rest is no reason to leave aside what comes next.
            if self.busy || !rested {
                self.drained = Some((Instant::now(), self.submitted));
            }
        } else if !self.busy {
            self.follow_up_in(wait_ms - passed_ms);
        }
    }

    /// Whether so much was handed over since they were that it is worth it in any case.
    fn is_much(&self) -> bool {
        let (_, submitted) = self.drained.unwrap_or((self.started, 0));
        let much = (self.managed / policy::MUCH_PART).max(kb_to_pages(policy::MUCH_KB));

        self.submitted.saturating_sub(submitted) >= much
    }

    /// Hands over what there is to hint, if it is time to. [`None`] if it is not.
    ///
    /// Time it is for the largest blocks when the watermark says so, and for the `rest` when it is
    /// that which says so.
    fn hint(
        &mut self,
        shared: &Shared,
        knobs: &Knobs,
        plan: &Plan,
        rest: Rest,
        flush: Option<u64>,
        token: &InThread,
    ) -> Option<Pass> {
        let enough = !self.vain && batch::is_due(plan, knobs);
        let largest = plan.largest();

        if !self.hinting {
            let left = || (rest != Rest::Leave || self.paced) && batch::is_left(plan);
            let due = || enough && batch::is_due(&largest, knobs);
            let all = flush.is_some() || left();

            self.hinting = plan.is_any() && (all || due());
            self.found = false;
            self.largest = !all;
            self.told = !all || rest == Rest::Again;
            self.smaller = !self.hinting && enough && plan.is_any();
            if self.smaller || (self.hinting && self.largest) {
                self.follow_up_in(policy::FOLLOW_UP_MS);
            }
        }
        if !self.hinting {
            return None;
        }

        let mut submitted = 0;
        let scope = if self.largest && flush.is_none() {
            &largest
        } else {
            plan
        };
        let pass = batch::hint(scope, &mut submitted, &shared.stats, token);

        if submitted != 0 {
            self.submitted = self.submitted.saturating_add(submitted);
            if !self.found {
                shared.stats.woken();
                self.found = true;
            }
        }
        if pass != Pass::Full {
            self.hinting = false;
            // What was not tried may be had by the next look; nor does one that finds nothing
            // make it worth to be woken again.
            self.vain = (self.vain || enough) && !self.found && !self.paced && pass != Pass::Held;
            if self.found && self.told {
                self.follow_up_in(policy::FOLLOW_UP_MS);
            }
            if self.found && !self.busy && self.is_much() {
                self.much = Some(Instant::now());
            }
            if self.found || flush.is_some() {
                self.looked = Instant::now();
                knobs::notify_backlog();
            }
        }
        if let (Some(flush), Pass::Over) = (flush, &pass) {
            shared.flushes.finished(flush, true);
        }
        Some(pass)
    }

    /// Tells those who watch what has changed.
    fn notice(&mut self, shared: &Shared, state: &queue::State) {
        if policy::is_stalled(state.oldest_ns()) != self.stalled {
            self.stalled = !self.stalled;
            if self.stalled {
                shared.stats.stalled();
                queue::trace_stall(state.oldest_ns());
                // (pr_warn_once!() came after Linux 6.18.)
                if !self.warned {
                    self.warned = true;
                    pr_warn!("the host does not answer; hinting goes on when it does\n");
                }
            }
        }

        let (status, _) = Status::now(shared);
        if self.status != Some(status) {
            self.status = Some(status);
            knobs::notify_status();
        }
    }
}
