// SPDX-License-Identifier: GPL-2.0

//! A model of who has which free block: the allocator, the module, mm/page_reporting.c, or the
//! host; and of who has the device.
//!
//! One action is what mm/page_hinting.c, mm/page_reporting.c and the balloon's driver do in one hold
//! of their locks. [`Hinting`] has few blocks and requests, so that the checker of the crate
//! stateright can visit every state there is, in whatever order things happen. The properties are
//! what must hold in all of them; [`Fault`] puts in what the code takes care not to do.
//!
//! A host may be silent or late, and may answer in any order and what it was not asked. Whether it
//! discards what it has acknowledged does not matter.

use stateright::{Model, Property};

pub const BLOCKS: usize = 3;
pub const REQUESTS: usize = 2;
/// Devices that there may be at a time; only one of them is registered.
pub const DEVICES: usize = 2;

/// A ring of blocks, by the number of the first of them: how the device knows a request.
pub type Ring = usize;

/// Where a block is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    #[default]
    InUse,
    /// And tagged, or not.
    Free { offline: bool },
    /// Isolated or in flight, and marked.
    Out(Ring),
    /// With page_reporting.
    Report,
}

const OFFLINE: Place = Place::Free { offline: true };

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Block {
    pub place: Place,
    /// It is out, and the epoch in which it was taken has not ended.
    pub current: bool,
    /// The host has acknowledged it since it was taken, and nothing was forgotten since.
    pub acked: bool,
}

/// `enum page_hinting_request_state`, of the ring that begins with this block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Request {
    #[default]
    Unused,
    InFlight(Ring),
    Done(Ring),
    Cancelled(Ring),
}

/// How far the module is with `page_hinting_attach()`, which unlocks while it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Client {
    #[default]
    Absent,
    Waits,
    Failed,
    Attached,
}

/// What its driver does with a device, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Hash)]
pub enum Phase {
    #[default]
    Absent,
    Registered,
    /// `reporting_stopped`: takes nothing more.
    Stopped,
    /// The host has forgotten all that it had.
    Reset,
    /// What is left in its queue is being cancelled.
    Unregistered,
}

/// What the queue has: rings by their number, and then the report.
const REPORT: usize = BLOCKS;
const ITEMS: usize = BLOCKS + 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Item {
    #[default]
    Absent,
    /// Until the reset the host may discard it at any time.
    Given,
    /// It was answered, and not fetched yet.
    Used,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    pub phase: Phase,
    pub queue: [Item; ITEMS],
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub blocks: [Block; BLOCKS],
    pub requests: [Request; REQUESTS],
    pub devices: [Device; DEVICES],
    /// `page_reporting_dev`, `pr_dev_info` and `page_hinting.dev`.
    pub registered: Option<usize>,
    pub reporting: Option<usize>,
    pub hinting: Option<usize>,
    /// page_reporting's work is busy, with a report or between two.
    pub busy: bool,
    pub client: Client,
    /// What the module's thread has taken or reaped. Without a module, the work that releases the
    /// device has reaped it, and holds `page_reporting_mutex`.
    pub isolated: Option<Ring>,
    pub reaped: Option<Ring>,
    /// What `page_hinting_cancel()` is about to return.
    pub cancelling: Option<Ring>,
    /// The host has discarded a block that was not given to it.
    pub harmed: bool,
    /// page_reporting has marked a block that was not acknowledged.
    pub misreported: bool,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Allocate(usize),
    Free(usize),
    /// `page_hinting_take()`; `_submit()`, to a device that answers within the call or later;
    /// `_reap()` of an entry of the table; `_return()` of what was taken or reaped; `_forget()`.
    Take(usize),
    Submit(bool),
    Reap(usize),
    Return,
    Forget,
    /// `page_hinting_attach()`, which then takes the device or gives up, and `_detach()`.
    Attach,
    Attached(bool),
    Detach,
    /// page_reporting takes a block for a pass; calls the device, has its answer, or is done.
    ReportTakes(usize),
    Report,
    /// The host discards what an item has and answers; or answers what it was not asked.
    HostAnswers(usize, usize),
    HostLies(Ring),
    /// The driver goes on to the next phase with a device.
    Driver(usize),
    /// `page_hinting_cancel()` of what was left in the queue.
    Cancel(usize, Ring),
    CancelReturns,
}

/// What the code must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The module's unload returns what is in flight, rather than leave it until the host answers.
    UnloadReturns,
    /// What is in flight comes back when the driver stops, before the device was reset.
    CancelBeforeReset,
    /// What was cancelled is tagged.
    CancelTags,
    /// The module returns what it learns was cancelled.
    CancelledReturns,
    /// An answer is believed without looking whether the request was in flight.
    Unchecked,
    /// The device is given back while requests are in flight.
    ReleaseInFlight,
    /// The device is given back though there is the next client.
    ReleaseIgnoresClient,
    /// The device is never given back.
    NeverGivesBack,
    /// Attaching takes the device while a report is under way.
    AttachDoesNotWait,
    /// Attaching fails, and page_reporting stays paused.
    FailureStaysPaused,
    /// A new device goes to page_reporting though there is a client.
    RegisterIgnoresClient,
    /// What page_reporting had when the device was reset is marked as reported.
    ReportTags,
    /// A driver that goes leaves the device with the module.
    UnregisterForgets,
    /// An allocation leaves the tag on the block.
    AllocateKeepsTag,
    /// An answer to what was taken before a forget tags.
    ForgetKeepsEpoch,
    /// Detaching leaves the tags.
    DetachKeepsTags,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Hinting {
    pub fault: Option<Fault>,
}

impl Hinting {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn forget(&self, state: &mut State) {
        for block in &mut state.blocks {
            if let Place::Free { offline } = &mut block.place {
                *offline = false;
            }
            block.current &= self.has(Fault::ForgetKeepsEpoch);
            // page_reporting has a mark of its own, which stays.
            block.acked &= block.place == Place::Report;
        }
    }

    /// The end of `page_hinting_release_device()`.
    fn release(&self, state: &mut State) {
        let is_left = state.client == Client::Absent || self.has(Fault::ReleaseIgnoresClient);
        let is_over = state.in_flight() == 0 || self.has(Fault::ReleaseInFlight);

        if is_left && is_over && state.reaped.is_none() && !self.has(Fault::NeverGivesBack) {
            state.reporting = state.hinting.take().or(state.reporting);
        }
    }
}

impl State {
    fn at(&mut self, place: Place) -> impl Iterator<Item = &mut Block> {
        self.blocks.iter_mut().filter(move |b| b.place == place)
    }

    fn has(&self, place: Place) -> bool {
        self.blocks.iter().any(|block| block.place == place)
    }

    fn is_in_flight(&self, ring: Ring) -> bool {
        self.requests.contains(&Request::InFlight(ring))
    }

    fn in_flight(&self) -> usize {
        (0..BLOCKS).filter(|ring| self.is_in_flight(*ring)).count()
    }

    /// How many would return a ring.
    fn owners(&self, ring: Ring) -> usize {
        let states = [Request::InFlight(ring), Request::Done(ring)];
        let requests = self
            .requests
            .iter()
            .filter(|request| states.contains(request));
        let hands = [self.isolated, self.reaped, self.cancelling];

        requests.count() + hands.iter().filter(|hand| **hand == Some(ring)).count()
    }

    /// `page_hinting_return()`.
    fn put_back(&mut self, place: Place, acked: bool) {
        for block in self.at(place) {
            let offline = acked && block.current;

            block.place = Place::Free { offline };
            block.current = false;
            block.acked &= offline;
        }
    }

    /// What only a fault does.
    fn put_back_in_flight(&mut self) {
        for ring in 0..BLOCKS {
            if self.is_in_flight(ring) {
                self.put_back(Place::Out(ring), false);
            }
        }
    }

    fn end_report(&mut self, is_marked: bool) {
        self.misreported |= is_marked && self.at(Place::Report).any(|block| !block.acked);
        self.put_back(Place::Report, false);
    }
}

fn only_if(is_so: bool) -> Option<()> {
    is_so.then_some(())
}

impl Model for Hinting {
    type State = State;
    type Action = Action;

    /// A guest with a device, which page_reporting has.
    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            registered: Some(0),
            reporting: Some(0),
            ..State::default()
        };

        state.devices[0].phase = Phase::Registered;
        vec![state]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        for is_so in [false, true] {
            actions.extend([Action::Submit(is_so), Action::Attached(is_so)]);
        }
        actions.extend([
            Action::Return,
            Action::Forget,
            Action::Attach,
            Action::Detach,
            Action::Report,
            Action::CancelReturns,
        ]);
        for block in 0..BLOCKS {
            actions.extend([
                Action::Allocate(block),
                Action::Free(block),
                Action::Take(block),
                Action::ReportTakes(block),
                Action::HostLies(block),
            ]);
        }
        actions.extend((0..REQUESTS).map(Action::Reap));
        for device in 0..DEVICES {
            actions.push(Action::Driver(device));
            actions.extend((0..ITEMS).map(|item| Action::HostAnswers(device, item)));
            actions.extend((0..BLOCKS).map(|ring| Action::Cancel(device, ring)));
        }
    }

    /// None if it can't happen now.
    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let is_attached = state.client == Client::Attached;
        let is_idle = state.isolated.is_none() && state.reaped.is_none();
        // Nobody holds page_reporting_mutex.
        let is_unlocked = is_idle || is_attached;

        match action {
            Action::Allocate(i) => {
                only_if(matches!(state.blocks[i].place, Place::Free { .. }))?;
                state.blocks[i].place = Place::InUse;
                state.blocks[i].acked = false;
            }
            Action::Free(i) => {
                only_if(state.blocks[i].place == Place::InUse)?;
                let offline = self.has(Fault::AllocateKeepsTag);
                state.blocks[i].place = Place::Free { offline };
            }
            Action::Take(i) => {
                only_if(state.blocks[i].place == Place::Free { offline: false })?;
                only_if(is_attached && state.reaped.is_none())?;
                let ring = *state.isolated.get_or_insert(i);
                state.blocks[i].place = Place::Out(ring);
                state.blocks[i].current = true;
            }
            Action::Submit(answers) => {
                let ring = state.isolated.take()?;
                let device = &mut state.devices[state.hinting?];
                let request = state.requests.iter_mut().find(|r| **r == Request::Unused)?;
                only_if(device.phase == Phase::Registered)?;
                if answers {
                    *request = Request::Done(ring);
                    state.at(Place::Out(ring)).for_each(|b| b.acked = true);
                } else {
                    *request = Request::InFlight(ring);
                    device.queue[ring] = Item::Given;
                }
            }
            Action::Reap(i) => {
                only_if(is_idle && (is_attached || state.client == Client::Absent))?;
                match state.requests[i] {
                    Request::Unused => return None,
                    Request::InFlight(ring) => {
                        let item = &mut state.devices[state.hinting?].queue[ring];
                        only_if(*item == Item::Used)?;
                        *item = Item::Absent;
                        state.reaped = Some(ring);
                    }
                    Request::Cancelled(_) if !self.has(Fault::CancelledReturns) => (),
                    Request::Done(ring) | Request::Cancelled(ring) => state.reaped = Some(ring),
                }
                state.requests[i] = Request::Unused;
                self.release(&mut state);
            }
            Action::Return => {
                let ring = state.isolated.or(state.reaped)?;
                let acked = state.reaped.is_some() && is_attached;
                state.put_back(Place::Out(ring), acked);
                (state.isolated, state.reaped) = (None, None);
                self.release(&mut state);
            }
            Action::Forget if is_attached => self.forget(&mut state),
            Action::Forget => return None,
            Action::Attach => {
                only_if(state.client == Client::Absent && is_unlocked)?;
                state.client = Client::Waits;
                state.reporting = None;
            }
            Action::Attached(true) => {
                let may = !state.busy || self.has(Fault::AttachDoesNotWait);
                only_if(state.client == Client::Waits && may)?;
                state.client = Client::Attached;
                state.hinting = state.registered;
            }
            Action::Attached(false) => {
                only_if(state.client == Client::Waits && state.busy)?;
                state.client = Client::Failed;
                if !self.has(Fault::FailureStaysPaused) {
                    state.reporting = state.registered;
                }
            }
            Action::Detach => {
                only_if(is_idle && (is_attached || state.client == Client::Failed))?;
                state.client = Client::Absent;
                if !self.has(Fault::DetachKeepsTags) {
                    self.forget(&mut state);
                }
                if self.has(Fault::UnloadReturns) {
                    state.put_back_in_flight();
                }
                self.release(&mut state);
            }
            Action::ReportTakes(i) => {
                only_if(state.blocks[i].place == Place::Free { offline: false })?;
                only_if(state.reporting.is_some() || state.busy)?;
                only_if(state.devices[state.registered?].queue[REPORT] == Item::Absent)?;
                state.blocks[i].place = Place::Report;
                state.busy = true;
            }
            Action::Report => {
                let has_none = !state.has(Place::Report);
                let device = &mut state.devices[state.registered?];
                match device.queue[REPORT] {
                    Item::Absent if has_none => state.busy = false,
                    Item::Absent if device.phase == Phase::Registered => {
                        device.queue[REPORT] = Item::Given;
                    }
                    // -ENODEV
                    Item::Absent => state.end_report(false),
                    Item::Given => return None,
                    Item::Used => {
                        device.queue[REPORT] = Item::Absent;
                        state.end_report(true);
                    }
                }
            }
            Action::HostAnswers(i, item) => {
                let device = &mut state.devices[i];
                only_if(device.phase < Phase::Reset && device.queue[item] == Item::Given)?;
                device.queue[item] = Item::Used;
                let (place, is_given) = match item {
                    REPORT => (Place::Report, true),
                    ring => (Place::Out(ring), state.is_in_flight(ring)),
                };
                state.harmed |= !is_given || !state.has(place);
                state.at(place).for_each(|block| block.acked = true);
            }
            Action::HostLies(ring) => {
                // page_hinting_check() refuses what is not in flight.
                only_if(self.has(Fault::Unchecked) && is_idle && is_attached)?;
                state.reaped = state.hinting.and(Some(ring));
            }
            Action::Driver(i) => {
                state.devices[i].phase = match state.devices[i].phase {
                    Phase::Absent => {
                        only_if(state.registered.is_none() && is_unlocked)?;
                        state.registered = Some(i);
                        let there_is_a_client = state.client != Client::Absent;
                        if there_is_a_client && !self.has(Fault::RegisterIgnoresClient) {
                            state.hinting = Some(i);
                        } else {
                            state.reporting = Some(i);
                        }
                        Phase::Registered
                    }
                    Phase::Registered => {
                        if self.has(Fault::CancelBeforeReset) {
                            state.put_back_in_flight();
                        }
                        Phase::Stopped
                    }
                    Phase::Stopped => Phase::Reset,
                    Phase::Reset => {
                        only_if(is_unlocked)?;
                        // The report under way ends, and no other begins.
                        state.end_report(self.has(Fault::ReportTags));
                        state.devices[i].queue[REPORT] = Item::Absent;
                        (state.registered, state.reporting, state.busy) = (None, None, false);
                        if state.hinting == Some(i) && !self.has(Fault::UnregisterForgets) {
                            state.hinting = None;
                        }
                        Phase::Unregistered
                    }
                    Phase::Unregistered => {
                        let is_empty = state.devices[i].queue == [Item::Absent; ITEMS];
                        only_if(is_empty && state.cancelling.is_none())?;
                        Phase::Absent
                    }
                };
            }
            Action::Cancel(i, ring) => {
                let device = &mut state.devices[i];
                let is_left = device.queue[ring] != Item::Absent && state.cancelling.is_none();
                only_if(device.phase == Phase::Unregistered && is_left)?;
                device.queue[ring] = Item::Absent;
                let left = Request::InFlight(ring);
                *state.requests.iter_mut().find(|r| **r == left)? = Request::Cancelled(ring);
                state.cancelling = Some(ring);
            }
            Action::CancelReturns => {
                let ring = state.cancelling.take()?;
                state.put_back(Place::Out(ring), self.has(Fault::CancelTags));
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let (always, sometimes) = (Property::<Self>::always, Property::<Self>::sometimes);

        vec![
            always("the host harms nothing", |_, state| !state.harmed),
            always("what is tagged was acknowledged", |_, state| {
                let mut blocks = state.blocks.iter();

                !state.misreported && blocks.all(|block| block.place != OFFLINE || block.acked)
            }),
            always("nothing is tagged without a client", |_, state| {
                state.client == Client::Attached || !state.has(OFFLINE)
            }),
            always("what is out has one owner", |_, state| {
                (0..BLOCKS)
                    .all(|ring| state.owners(ring) == usize::from(state.has(Place::Out(ring))))
            }),
            always("one at a time has the device", |_, state| {
                let reports = state.reporting.is_some() || state.busy;

                !(reports && state.hinting.is_some())
            }),
            always("the queue is that of one of them", |_, state| {
                state.devices.iter().all(|device| {
                    let has = |item: usize| device.queue[item] != Item::Absent;

                    !(has(REPORT) && (0..REPORT).any(has))
                })
            }),
            always("the device has its user", |_, state| {
                let user = state.reporting.or(state.hinting);

                match state.client {
                    Client::Waits => user.is_none() || user == state.registered,
                    Client::Attached => state.hinting == state.registered,
                    _ => user == state.registered,
                }
            }),
            always("the device goes back with the last", |_, state| {
                state.client != Client::Absent
                    || state.hinting.is_none()
                    || state.reaped.is_some()
                    || state.requests != [Request::Unused; REQUESTS]
            }),
            // That these come about at all.
            sometimes("a block is tagged", |_, state| state.has(OFFLINE)),
            sometimes("the module goes while the host has all", |_, state| {
                state.client == Client::Absent && state.in_flight() == REQUESTS
            }),
            sometimes("the next comes while the host has all", |_, state| {
                state.client == Client::Waits && state.in_flight() == REQUESTS
            }),
            sometimes("a second device is hinted by", |_, state| {
                state.hinting == Some(1) && state.in_flight() != 0
            }),
        ]
    }
}
