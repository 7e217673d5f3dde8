use forensics::frame::CROP_BYTES;
use ops::metrics::Registry;

use super::*;

fn crop(value: u8) -> Box<[u8]> {
    vec![value; CROP_BYTES].into()
}

/// A device that answers each crop with its first byte; it takes one batch per permit.
fn device(seat: DeviceSeat, permits: std::sync::mpsc::Receiver<()>, metrics: Metrics) -> Vec<usize> {
    let mut sizes = Vec::new();
    while permits.recv().is_ok() {
        let Some(batch) = seat.next() else { break };
        sizes.push(batch.pixels.count());
        let logits = (0..batch.pixels.count()).map(|i| Logit::new(f32::from(batch.pixels.crop(i)[0])));
        let logits = logits.collect();
        seat.give_back(batch.answer(logits, Instant::now(), Duration::from_millis(8), &metrics));
    }
    sizes
}

#[tokio::test]
async fn crops_of_many_media_share_a_batch_and_each_gets_its_own_answer() {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let (scorer, packer, seat) = room(4, metrics.clone());
    let (permit, permits) = std::sync::mpsc::sync_channel(16);
    let packing = std::thread::spawn(move || packer.pack());
    let working = std::thread::spawn(move || device(seat, permits, metrics));
    let mut answers = Vec::new();
    for value in 0..7 {
        answers.push(scorer.bring(crop(value), Lane::Standard).await);
    }
    // The fourth has lost its job while it waits for the second batch.
    answers.remove(4);
    for _ in 0..2 {
        permit.send(()).unwrap();
    }
    for (answer, value) in answers.into_iter().zip([0u8, 1, 2, 3, 5, 6]) {
        let scored = answer.await.unwrap().unwrap();
        assert_eq!(scored.logit.get(), f32::from(value));
        assert!(scored.device_time < scored.inference);
    }
    drop(scorer);
    packing.join().unwrap();
    drop(permit);
    assert_eq!(working.join().unwrap(), [4, 2], "the abandoned one is skipped");
}

#[tokio::test]
async fn without_a_device_jobs_are_interrupted() {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let (scorer, packer, seat) = room(2, metrics);
    let packing = std::thread::spawn(move || packer.pack());
    let before = scorer.bring(crop(1), Lane::Standard).await;
    drop(seat);
    packing.join().unwrap();
    assert!(before.await.is_err(), "its reply is gone");
    assert!(scorer.bring(crop(2), Lane::Live).await.await.is_err());
}

#[tokio::test]
async fn what_waits_is_finished_when_the_jobs_end() {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let (scorer, packer, seat) = room(8, metrics.clone());
    let answer = scorer.bring(crop(3), Lane::Bulk).await;
    drop(scorer);
    let (permit, permits) = std::sync::mpsc::sync_channel(4);
    for _ in 0..2 {
        permit.send(()).unwrap();
    }
    let packing = std::thread::spawn(move || packer.pack());
    let sizes = device(seat, permits, metrics);
    packing.join().unwrap();
    assert_eq!((sizes, answer.await.unwrap().unwrap().logit.get()), (vec![1], 3.0));
}
