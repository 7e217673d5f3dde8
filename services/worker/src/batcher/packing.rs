//! Which waiting crops go into the next batch. Pure: no clock, no lock, no pixels.

use std::collections::VecDeque;

/// Something that waits for a batch.
pub(crate) trait Ticket {
    /// Somebody waits for the answer: it goes first, and its batch takes nothing more in.
    fn is_live(&self) -> bool;
    /// Nobody wants the answer any more: it is skipped.
    fn is_abandoned(&self) -> bool;
}

/// Tickets in order of arrival, live ones apart.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    live: VecDeque<T>,
    others: VecDeque<T>,
}

/// Why a batch took no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// It holds as many as pay.
    Full,
    /// It holds a live one.
    Live,
    /// The device became free: no batch lingers.
    DeviceFree,
}

/// The batch that is being packed.
#[derive(Debug)]
pub(crate) struct OpenBatch<T> {
    tickets: Vec<T>,
    has_live: bool,
}

impl CloseReason {
    /// The name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Live => "live",
            Self::DeviceFree => "device_free",
        }
    }
}

impl<T: Ticket> Waiting<T> {
    pub(crate) fn new() -> Self {
        Self { live: VecDeque::new(), others: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, ticket: T) {
        let queue = if ticket.is_live() { &mut self.live } else { &mut self.others };
        queue.push_back(ticket);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.others.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len() + self.others.len()
    }

    pub(crate) fn clear(&mut self) {
        self.live.clear();
        self.others.clear();
    }
}

impl<T: Ticket> OpenBatch<T> {
    pub(crate) fn new() -> Self {
        Self { tickets: Vec::new(), has_live: false }
    }

    /// Whether it may take one more, with `size_max` the most it may hold.
    pub(crate) fn has_room(&self, size_max: usize) -> bool {
        !self.has_live && self.tickets.len() < size_max
    }

    /// Takes from those who wait, live ones first; gives the index of the first new ticket. Live ones are not
    /// joined by others that came with them: a smaller batch is done sooner.
    pub(crate) fn take_from(&mut self, waiting: &mut Waiting<T>, size_max: usize) -> usize {
        let first_new = self.tickets.len();
        if !self.has_room(size_max) {
            return first_new;
        }
        self.take_queue(&mut waiting.live, size_max);
        self.has_live = self.tickets.len() > first_new;
        if !self.has_live {
            self.take_queue(&mut waiting.others, size_max);
        }
        first_new
    }

    fn take_queue(&mut self, queue: &mut VecDeque<T>, size_max: usize) {
        while self.tickets.len() < size_max {
            let Some(ticket) = queue.pop_front() else { return };
            if !ticket.is_abandoned() {
                self.tickets.push(ticket);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    pub(crate) fn tickets_from(&mut self, first: usize) -> &mut [T] {
        &mut self.tickets[first..]
    }

    /// The tickets in order, and why there are no more; the batch is empty afterwards.
    pub(crate) fn close(&mut self, size_max: usize) -> (Vec<T>, CloseReason) {
        let reason = if self.has_live {
            CloseReason::Live
        } else if self.tickets.len() >= size_max {
            CloseReason::Full
        } else {
            CloseReason::DeviceFree
        };
        self.has_live = false;
        (std::mem::take(&mut self.tickets), reason)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    struct Crop {
        number: usize,
        live: bool,
        abandoned: Rc<Cell<bool>>,
    }

    impl Ticket for Crop {
        fn is_live(&self) -> bool {
            self.live
        }
        fn is_abandoned(&self) -> bool {
            self.abandoned.get()
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arrive { live: bool },
        Abandon(usize),
        Take,
        DeviceFree,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => prop::bool::weighted(0.2).prop_map(|live| Step::Arrive { live }),
            1 => any::<usize>().prop_map(Step::Abandon),
            3 => Just(Step::Take),
            2 => Just(Step::DeviceFree),
        ]
    }

    proptest! {
        #[test]
        fn every_wanted_crop_is_in_exactly_one_batch(
            steps in prop::collection::vec(step(), 0..200), size_max in 1usize..9,
        ) {
            let (mut waiting, mut open) = (Waiting::new(), OpenBatch::new());
            let (mut all, mut packed) = (Vec::<Crop>::new(), Vec::<Crop>::new());
            // The device takes until nothing is left.
            let rest = [Step::Take, Step::DeviceFree].into_iter().cycle().take(2 * steps.len() + 2);
            for step in steps.clone().into_iter().chain(rest) {
                match step {
                    Step::Arrive { live } => {
                        let crop = Crop { number: all.len(), live, abandoned: Rc::default() };
                        all.push(crop.clone());
                        waiting.push(crop);
                    }
                    Step::Abandon(which) => {
                        if let Some(crop) = all.get(which % all.len().max(1)) {
                            crop.abandoned.set(true);
                        }
                    }
                    Step::Take => {
                        let first = open.take_from(&mut waiting, size_max);
                        for crop in open.tickets_from(first) {
                            prop_assert!(!crop.is_abandoned(), "abandoned crops are not packed");
                        }
                    }
                    Step::DeviceFree => {
                        let (batch, reason) = open.close(size_max);
                        prop_assert!(batch.len() <= size_max);
                        prop_assert_eq!(batch.iter().any(|crop| crop.live), reason == CloseReason::Live);
                        prop_assert!(reason != CloseReason::Full || batch.len() == size_max);
                        packed.extend(batch);
                    }
                }
            }
            prop_assert!(waiting.is_empty() && open.is_empty(), "nothing is left behind");
            let mut numbers: Vec<usize> = packed.iter().map(|crop| crop.number).collect();
            for live in [true, false] {
                let order: Vec<usize> = packed.iter().filter(|c| c.live == live).map(|c| c.number).collect();
                prop_assert!(order.is_sorted(), "first come, first served within a lane");
            }
            numbers.sort_unstable();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "no crop twice");
            for crop in all.iter().filter(|crop| !crop.is_abandoned()) {
                prop_assert!(numbers.binary_search(&crop.number).is_ok(), "no wanted crop is lost");
            }
        }
    }

    #[test]
    fn a_live_crop_goes_first_and_alone() {
        let (mut waiting, mut open) = (Waiting::new(), OpenBatch::new());
        for (number, live) in [(0, false), (1, false), (2, true)] {
            waiting.push(Crop { number, live, abandoned: Rc::default() });
        }
        open.take_from(&mut waiting, 8);
        let (batch, reason) = open.close(8);
        assert_eq!(
            (batch.iter().map(|c| c.number).collect::<Vec<_>>(), reason),
            (vec![2], CloseReason::Live)
        );
        open.take_from(&mut waiting, 2);
        let (batch, reason) = open.close(2);
        assert_eq!((batch.len(), reason), (2, CloseReason::Full));
    }
}
