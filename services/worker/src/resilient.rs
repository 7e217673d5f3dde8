//! One batch on an engine that may run out of memory or answer with NaN: pure, over any engine.

use std::ops::Range;

use forensics::DetectorError;

/// A batch that does not fit is halved this often; then the process has to start anew. Chosen: an eighth of
/// a batch that fitted at warm-up fails only when the device's memory is lost to somebody else.
const HALVINGS_MAX: u32 = 3;

/// What a batch came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answered<T> {
    /// One answer an item; `None` where it is not a number, twice.
    pub(crate) items: Vec<Option<T>>,
    /// How often the device was out of memory.
    pub(crate) halved: u32,
    /// How often an output was not a number, counting both tries.
    pub(crate) non_finite: u32,
}

/// Why there is no answer at all: the engine is done for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum EngineFault {
    /// Even a small batch does not fit.
    #[error("out of memory with a batch of {batch} after {HALVINGS_MAX} halvings: {detail}")]
    OutOfMemory { batch: usize, detail: String },
    /// The device is broken, or the engine breaks its contract.
    #[error("{0}")]
    Broken(String),
}

/// Asks `engine` about the items `0..count`, in as few calls as it allows.
pub(crate) fn answer<T>(
    count: usize,
    engine: &mut dyn FnMut(Range<usize>) -> Result<Vec<T>, DetectorError>,
) -> Result<Answered<T>, EngineFault> {
    let mut answered = Answered { items: (0..count).map(|_| None).collect(), halved: 0, non_finite: 0 };
    // Parts still to do, with the number of halvings behind them.
    let mut parts = vec![(0..count, 0)];
    while let Some((part, halvings)) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        match engine(part.clone()) {
            Ok(outputs) if outputs.len() == part.len() => {
                for (slot, output) in answered.items[part].iter_mut().zip(outputs) {
                    *slot = Some(output);
                }
            }
            Ok(outputs) => {
                let why = format!("the engine gave {} answers for {} items", outputs.len(), part.len());
                return Err(EngineFault::Broken(why));
            }
            Err(DetectorError::OutOfMemory { batch, detail }) => {
                answered.halved += 1;
                if halvings == HALVINGS_MAX {
                    return Err(EngineFault::OutOfMemory { batch, detail });
                }
                let middle = part.start + part.len().div_ceil(2);
                parts.push((middle..part.end, halvings + 1));
                parts.push((part.start..middle, halvings + 1));
            }
            Err(DetectorError::NonFinite { item }) if item < part.len() => {
                answered.non_finite += 1;
                let bad = part.start + item;
                if part.len() > 1 {
                    parts.push((bad + 1..part.end, halvings));
                    parts.push((part.start..bad, halvings));
                }
                once_more_alone(bad, engine, &mut answered)?;
            }
            Err(error) => return Err(EngineFault::Broken(error.to_string())),
        }
    }
    Ok(answered)
}

fn once_more_alone<T>(
    item: usize,
    engine: &mut dyn FnMut(Range<usize>) -> Result<Vec<T>, DetectorError>,
    answered: &mut Answered<T>,
) -> Result<(), EngineFault> {
    match engine(item..item + 1) {
        Ok(mut outputs) if outputs.len() == 1 => answered.items[item] = outputs.pop(),
        Err(DetectorError::NonFinite { .. }) => answered.non_finite += 1,
        Ok(outputs) => {
            return Err(EngineFault::Broken(format!(
                "the engine gave {} answers for one item",
                outputs.len()
            )));
        }
        Err(DetectorError::OutOfMemory { batch, detail }) => {
            return Err(EngineFault::OutOfMemory { batch, detail });
        }
        Err(error) => return Err(EngineFault::Broken(error.to_string())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Fits `fits` items a call; says NonFinite for the first item of a call that is in `bad`, and for items
    /// in `flaky` only while they are in company.
    fn engine(
        fits: usize,
        bad: BTreeSet<usize>,
        flaky: BTreeSet<usize>,
    ) -> impl FnMut(Range<usize>) -> Result<Vec<usize>, DetectorError> {
        move |part| {
            if part.len() > fits {
                return Err(DetectorError::OutOfMemory { batch: part.len(), detail: "test".to_owned() });
            }
            let alone = part.len() == 1;
            let stumbles = |item: &usize| bad.contains(item) || (!alone && flaky.contains(item));
            match part.clone().find(stumbles) {
                Some(item) => Err(DetectorError::NonFinite { item: item - part.start }),
                None => Ok(part.collect()),
            }
        }
    }

    proptest! {
        #[test]
        fn every_item_that_has_an_answer_gets_its_own(
            count in 0usize..40,
            halvings in 0u32..=HALVINGS_MAX,
            bad in prop::collection::btree_set(0usize..40, 0..6),
            flaky in prop::collection::btree_set(0usize..40, 0..6),
        ) {
            let fits = count.div_ceil(1 << halvings).max(1);
            let answered = answer(count, &mut engine(fits, bad.clone(), flaky)).expect("it fits in the end");
            for (item, output) in answered.items.iter().enumerate() {
                prop_assert_eq!(*output, (!bad.contains(&item)).then_some(item));
            }
        }
    }

    #[test]
    fn what_never_fits_is_a_fault() {
        let fault = answer(32, &mut engine(0, BTreeSet::new(), BTreeSet::new())).unwrap_err();
        assert_eq!(fault, EngineFault::OutOfMemory { batch: 4, detail: "test".to_owned() });
    }

    #[test]
    fn a_broken_device_is_a_fault_at_once() {
        let mut calls = 0;
        let fault = answer::<()>(8, &mut |_| {
            calls += 1;
            Err(DetectorError::Device("sticky".to_owned()))
        });
        assert_eq!(fault, Err(EngineFault::Broken("device fault: sticky".to_owned())));
        assert_eq!(calls, 1);
        assert!(answer(2, &mut |_| Ok(vec![1])).is_err(), "too few answers are a fault, never shifted");
    }
}
