// SPDX-License-Identifier: GPL-2.0

//! A model of who has which free block: the allocator, the module, mm/page_reporting.c, or the
//! host; and of who has the device.
//!
//! One action is what mm/page_hinting.c, mm/page_reporting.c and the balloon's driver do in one hold
//! of their locks. [`Hinting`] has few blocks and requests, so that the checker of the crate
//! stateright can visit every state there is, in whatever order things happen. The properties are
//! what must hold in all of them; [`Fault`] puts in what the code takes care not to do.
//!
//! A host may be silent, late, and answer in any order and what it was not asked. That it discards
//! what it has acknowledged is not believed, nor needed.

use stateright::{Model, Property};

pub const BLOCKS: usize = 3;
pub const REQUESTS: usize = 2;
/// Devices that there are one after the other.
pub const DEVICES: usize = 2;

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Free {
        offline: bool,
    },
    InUse,
    /// Isolated or in flight, by this request of the module.
    Request(usize),
    /// With page_reporting.
    Report,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    pub place: Place,
    /// The host has acknowledged it since it was allocated last.
    pub acked: bool,
}

/// `enum page_hinting_request_state`. In flight, it is at this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    Unused,
    Isolated,
    InFlight(usize),
}

/// A pass of page_reporting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    Idle,
    /// It has blocks, and has not called the device yet.
    Isolated(usize),
    /// It waits for the answer of the device.
    Waits(usize),
}

/// What its driver does with a device, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    Absent,
    Registered,
    /// `reporting_stopped`: takes nothing more.
    Stopped,
    /// The host has forgotten all that it had.
    Reset,
    /// No longer registered; what is left in its queue is being cancelled.
    Unregistered,
    Gone,
}

/// What the queue has: requests of the module by their number, and then the report.
const REPORT: usize = REQUESTS;
const ITEMS: usize = REQUESTS + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    pub phase: Phase,
    /// The host has it, and may discard it at any time.
    pub with_host: [bool; ITEMS],
    /// It was answered, and not fetched yet.
    pub used: [bool; ITEMS],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub blocks: [Block; BLOCKS],
    pub requests: [Request; REQUESTS],
    pub devices: [Device; DEVICES],
    /// `page_reporting_dev`, `pr_dev_info` and `page_hinting.dev`.
    pub registered: Option<usize>,
    pub reporting: Option<usize>,
    pub hinting: Option<usize>,
    pub report: Report,
    /// There is a client: the module is loaded.
    pub client: bool,
    /// The host has discarded a block that was not given to it.
    pub harmed: bool,
    /// The device went back from the module to page_reporting.
    pub given_back: bool,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Allocate(usize),
    Free(usize),
    /// `page_hinting_take()`, `_submit()`, `_drop()` and `_reap()`, the last by whoever calls it.
    Take(usize, usize),
    Submit(usize),
    Drop(usize),
    Reap,
    /// `page_hinting_attach()` and `_detach()`, and the work that comes after the latter.
    Attach,
    Detach,
    Release,
    /// page_reporting takes a block for a pass, calls the device, and has its answer or error.
    ReportTakes(usize),
    ReportCalls,
    ReportEnds,
    /// The host discards what an item has and answers; or answers what it was not asked.
    HostAnswers(usize, usize),
    HostLies(usize),
    /// The driver goes on to the next phase with a device.
    Driver(usize),
    /// `page_hinting_cancel()` of what was left in the queue.
    Cancel(usize, usize),
}

/// What the code must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Detaching returns what is in flight, rather than leave it until the host answers.
    DetachReturns,
    /// What is in flight comes back when the driver stops, before the device was reset.
    CancelBeforeReset,
    /// What was cancelled is tagged.
    CancelTags,
    /// An answer is believed without looking whether the request was in flight.
    Unchecked,
    /// Detaching gives the device back while requests are in flight.
    ReleaseInFlight,
    /// Attaching does not wait for a report under way.
    AttachDoesNotWait,
    /// A new device goes to page_reporting though there is a client.
    RegisterIgnoresClient,
    /// What page_reporting had when the device was reset is tagged.
    ReportTags,
    /// A driver that goes leaves the device with the module.
    UnregisterForgets,
    /// An allocation leaves the tag on the block.
    AllocateKeepsTag,
    /// The device stays with the module's core for ever.
    NeverGivesBack,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Hinting {
    pub fault: Option<Fault>,
}

impl Hinting {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl State {
    /// A guest with its first device, which page_reporting has.
    fn new() -> Self {
        let device = |phase| Device {
            phase,
            with_host: [false; ITEMS],
            used: [false; ITEMS],
        };
        let mut devices = [device(Phase::Absent); DEVICES];

        devices[0].phase = Phase::Registered;
        State {
            blocks: [Block {
                place: Place::Free { offline: false },
                acked: false,
            }; BLOCKS],
            requests: [Request::Unused; REQUESTS],
            devices,
            registered: Some(0),
            reporting: Some(0),
            hinting: None,
            report: Report::Idle,
            client: false,
            harmed: false,
            given_back: false,
        }
    }

    fn of(item: usize) -> Place {
        if item == REPORT {
            Place::Report
        } else {
            Place::Request(item)
        }
    }

    fn count(&self, place: Place) -> usize {
        let blocks = self.blocks.iter();

        blocks.filter(|block| block.place == place).count()
    }

    fn in_flight(&self) -> bool {
        let mut requests = self.requests.iter();

        requests.any(|request| matches!(request, Request::InFlight(_)))
    }

    /// Puts the blocks of an item back.
    fn put_back(&mut self, item: usize, offline: bool) {
        for block in &mut self.blocks {
            if block.place == Self::of(item) {
                block.place = Place::Free { offline };
            }
        }
        if item == REPORT {
            self.report = Report::Idle;
        } else {
            self.requests[item] = Request::Unused;
        }
    }

    /// Takes back what a device has answered, as far as requests of the module go.
    fn reap(&mut self, device: usize) {
        for item in 0..REQUESTS {
            if self.devices[device].used[item] {
                self.devices[device].used[item] = false;
                self.put_back(item, true);
            }
        }
    }

    /// `page_hinting_release_device()`.
    fn release(&mut self, fault: Option<Fault>) {
        if let Some(device) = self.hinting {
            self.reap(device);
        }
        if fault == Some(Fault::NeverGivesBack) {
            return;
        }
        if !self.in_flight() || fault == Some(Fault::ReleaseInFlight) {
            let device = self.hinting.take();

            self.given_back |= device.is_some();
            self.reporting = device.or(self.reporting);
        }
    }

    fn driver(&mut self, device: usize, hinting: &Hinting) {
        let phase = self.devices[device].phase;

        self.devices[device].phase = match phase {
            Phase::Absent => {
                self.registered = Some(device);
                if self.client && !hinting.has(Fault::RegisterIgnoresClient) {
                    self.hinting = Some(device);
                } else {
                    self.reporting = Some(device);
                }
                Phase::Registered
            }
            Phase::Registered => {
                if hinting.has(Fault::CancelBeforeReset) {
                    for item in 0..REQUESTS {
                        if self.requests[item] == Request::InFlight(device) {
                            self.put_back(item, false);
                        }
                    }
                }
                Phase::Stopped
            }
            Phase::Stopped => {
                self.devices[device].with_host = [false; ITEMS];
                Phase::Reset
            }
            Phase::Reset => {
                // The report under way ends, and no other begins.
                if self.report != Report::Idle {
                    self.put_back(REPORT, hinting.has(Fault::ReportTags));
                }
                self.devices[device].used[REPORT] = false;
                self.registered = None;
                self.reporting = None;
                if !hinting.has(Fault::UnregisterForgets) {
                    self.hinting = self.hinting.filter(|other| *other != device);
                }
                Phase::Unregistered
            }
            Phase::Unregistered => Phase::Gone,
            Phase::Gone => unreachable!(),
        };
    }
}

impl Model for Hinting {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (i, block) in state.blocks.iter().enumerate() {
            match block.place {
                Place::Free { offline } => {
                    actions.push(Action::Allocate(i));
                    if offline {
                        continue;
                    }
                    if state.client {
                        actions.extend((0..REQUESTS).map(|request| Action::Take(request, i)));
                    }
                    actions.push(Action::ReportTakes(i));
                }
                Place::InUse => actions.push(Action::Free(i)),
                _ => (),
            }
        }
        for request in 0..REQUESTS {
            actions.extend([
                Action::Submit(request),
                Action::Drop(request),
                Action::HostLies(request),
            ]);
        }
        actions.extend([
            Action::Reap,
            Action::Attach,
            Action::Detach,
            Action::Release,
            Action::ReportCalls,
            Action::ReportEnds,
        ]);
        for device in 0..DEVICES {
            actions.push(Action::Driver(device));
            for item in 0..ITEMS {
                actions.push(Action::HostAnswers(device, item));
                actions.push(Action::Cancel(device, item));
            }
        }
    }

    /// None if it can't happen now.
    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();

        match action {
            Action::Allocate(i) => {
                let block = &mut state.blocks[i];
                block.place = Place::InUse;
                block.acked = false;
            }
            Action::Free(i) => {
                state.blocks[i].place = Place::Free {
                    offline: self.has(Fault::AllocateKeepsTag),
                };
            }
            Action::Take(request, i) => {
                if matches!(state.requests[request], Request::InFlight(_)) {
                    return None;
                }
                state.requests[request] = Request::Isolated;
                state.blocks[i].place = Place::Request(request);
            }
            Action::Submit(request) => {
                let device = state.hinting?;
                let phase = state.devices[device].phase;
                if !state.client
                    || state.requests[request] != Request::Isolated
                    || phase != Phase::Registered
                {
                    return None;
                }
                state.requests[request] = Request::InFlight(device);
                state.devices[device].with_host[request] = true;
            }
            Action::Drop(request) => {
                if state.requests[request] != Request::Isolated {
                    return None;
                }
                state.put_back(request, false);
            }
            Action::Reap => state.reap(state.hinting?),
            Action::Attach => {
                if state.client {
                    return None;
                }
                if state.registered.is_some() && state.registered != state.hinting {
                    if state.report != Report::Idle && !self.has(Fault::AttachDoesNotWait) {
                        return None;
                    }
                    state.reporting = None;
                }
                state.hinting = state.registered;
                state.client = true;
            }
            Action::Detach => {
                // The module has dropped what it had isolated.
                if !state.client || state.requests.contains(&Request::Isolated) {
                    return None;
                }
                state.client = false;
                if self.has(Fault::DetachReturns) {
                    for request in 0..REQUESTS {
                        state.put_back(request, false);
                    }
                }
                state.release(self.fault);
            }
            Action::Release => {
                if state.client {
                    return None;
                }
                state.release(self.fault);
            }
            Action::ReportTakes(i) => {
                let device = match state.report {
                    Report::Idle => state.reporting?,
                    Report::Isolated(device) => device,
                    Report::Waits(_) => return None,
                };
                state.report = Report::Isolated(device);
                state.blocks[i].place = Place::Report;
            }
            Action::ReportCalls => {
                let Report::Isolated(device) = state.report else {
                    return None;
                };
                if state.devices[device].phase == Phase::Registered {
                    state.devices[device].with_host[REPORT] = true;
                    state.report = Report::Waits(device);
                } else {
                    // -ENODEV
                    state.put_back(REPORT, false);
                }
            }
            Action::ReportEnds => {
                let Report::Waits(device) = state.report else {
                    return None;
                };
                if !state.devices[device].used[REPORT] {
                    return None;
                }
                state.devices[device].used[REPORT] = false;
                state.put_back(REPORT, true);
            }
            Action::HostAnswers(device, item) => {
                if !state.devices[device].with_host[item] {
                    return None;
                }
                let is_given = match item {
                    REPORT => state.report == Report::Waits(device),
                    _ => state.requests[item] == Request::InFlight(device),
                };
                state.harmed |= !is_given;
                for block in &mut state.blocks {
                    block.acked |= block.place == State::of(item);
                }
                state.devices[device].with_host[item] = false;
                state.devices[device].used[item] = true;
            }
            Action::HostLies(request) => {
                state.hinting?;
                let is_in_flight = matches!(state.requests[request], Request::InFlight(_));
                if is_in_flight || !self.has(Fault::Unchecked) {
                    // What is in flight it may answer; anything else is refused.
                    return None;
                }
                state.put_back(request, true);
            }
            Action::Driver(device) => {
                let busy = state.registered.is_some_and(|other| other != device);
                let phase = state.devices[device].phase;
                let left =
                    (0..REQUESTS).any(|item| state.requests[item] == Request::InFlight(device));
                if phase == Phase::Gone
                    || (phase == Phase::Absent && busy)
                    || (phase == Phase::Unregistered && left)
                {
                    return None;
                }
                state.driver(device, self);
            }
            Action::Cancel(device, item) => {
                if item == REPORT
                    || state.devices[device].phase != Phase::Unregistered
                    || state.requests[item] != Request::InFlight(device)
                {
                    return None;
                }
                state.devices[device].used[item] = false;
                state.put_back(item, self.has(Fault::CancelTags));
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "the host discards what was given to it alone",
                |_, state: &State| !state.harmed,
            ),
            Property::always("what is tagged was acknowledged", |_, state: &State| {
                state
                    .blocks
                    .iter()
                    .all(|block| block.place != Place::Free { offline: true } || block.acked)
            }),
            Property::always("no block is lost", |_, state: &State| {
                (0..REQUESTS).all(|request| {
                    let has = state.count(Place::Request(request)) != 0;

                    has == (state.requests[request] != Request::Unused)
                }) && (state.count(Place::Report) != 0) == (state.report != Report::Idle)
            }),
            Property::always("one at a time has the device", |_, state: &State| {
                let reports = state.reporting.is_some() || state.report != Report::Idle;
                let hints = state.hinting.is_some();

                !(reports && hints)
            }),
            Property::always("the queue is that of one of them", |_, state: &State| {
                state.devices.iter().all(|device| {
                    let has = |item: usize| device.with_host[item] || device.used[item];

                    !(has(REPORT) && (0..REQUESTS).any(has))
                })
            }),
            Property::always("who has the device has it", |_, state: &State| {
                [state.reporting, state.hinting]
                    .iter()
                    .flatten()
                    .all(|device| state.registered == Some(*device))
            }),
            Property::always("the module has the device there is", |_, state: &State| {
                !state.client || state.hinting == state.registered
            }),
            // That these come about at all.
            Property::sometimes("a block is tagged", |_, state: &State| {
                state.count(Place::Free { offline: true }) != 0
            }),
            Property::sometimes(
                "the module goes while the host has all",
                |_, state: &State| {
                    !state.client
                        && (0..REQUESTS)
                            .all(|request| matches!(state.requests[request], Request::InFlight(_)))
                },
            ),
            Property::sometimes(
                "the device is given back with the last",
                |_, state: &State| {
                    state.given_back
                        && state.reporting.is_some()
                        && state.count(Place::Free { offline: true }) == BLOCKS
                },
            ),
            Property::sometimes("a second device is hinted by", |_, state: &State| {
                state.hinting == Some(1) && state.in_flight()
            }),
        ]
    }
}
