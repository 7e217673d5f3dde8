//! "Talk to it from elsewhere": a client in another language, with nothing of ours but the .proto files.

use std::collections::BTreeSet;
use std::process::Command;

use e2e::binaries::root;
use e2e::fleet::Fleet;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_sends_protobuf_and_json_and_reads_verdicts() {
    let mut fleet = Fleet::builder().workers(1).partitions(4).start().await;
    let python = testbed::deps("python/bin/python").expect("the set-up makes it");
    let script = root().join("tests/elsewhere/client.py");
    let client = |bootstrap: &str, id: &str, timeout: &str| {
        let mut command = Command::new(&python);
        command.arg(&script).args(["--bootstrap", bootstrap, "--bucket", "media", "--id", id]);
        // Half of the fleet's pictures are forged.
        command.args(["--key", "pictures/0.png", "--key", "pictures/1.png", "--faces", "cropped"]);
        command.args(["--timeout", timeout]);
        command.output().expect("Python starts")
    };
    let output = client(&fleet.kafka().bootstrap(), "py", "90");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let said: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect();
    let of = |event: &'static str| said.iter().filter(move |line| line["event"] == event);

    // Java's default partitioner, as everybody of ours: the references of one media share a partition.
    assert_eq!(of("sent").count(), 4);
    for sent in of("sent") {
        let key = sent["key"].as_str().expect("a key");
        assert_eq!(sent["partition"], stream::partition_of_key(key.as_bytes(), 4), "{key}");
    }
    let verdicts: BTreeSet<[&str; 3]> = of("verdict")
        .map(|line| {
            let verdict = &line["verdict"];
            [&line["sent_as"], &verdict["mediaId"], &verdict["outcome"]]
                .map(|value| value.as_str().expect("text"))
        })
        .collect();
    let expected = [
        ["protobuf", "py-protobuf-0", "OUTCOME_LIKELY_FORGED"],
        ["protobuf", "py-protobuf-1", "OUTCOME_LIKELY_AUTHENTIC"],
        ["json", "py-json-0", "OUTCOME_LIKELY_FORGED"],
        ["json", "py-json-1", "OUTCOME_LIKELY_AUTHENTIC"],
    ];
    assert_eq!(verdicts, expected.into());
    assert_eq!(of("verdict").count(), 4, "one each");
    for line in of("verdict") {
        assert_eq!(line["verdict"]["labels"]["producer"], "python");
    }

    let nowhere = client("127.0.0.1:1", "nobody", "2");
    assert_eq!(nowhere.status.code(), Some(69), "{nowhere:?}");
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("127.0.0.1:1"), "the broker is named");
}
