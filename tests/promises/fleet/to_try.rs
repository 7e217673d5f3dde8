//! `make fleet`: it says when it is ready and what to try; Ctrl-C leaves no process behind, and the next start in the same
//! folder knows every verdict.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::process::DEADLINE;
use e2e::{binaries, paint};
use testbed::{Server, Signal, until};

#[test]
fn a_fleet_to_try_is_left_and_found_again() {
    let temporary = tempfile::tempdir().expect("a folder");
    // PostgreSQL, which refuses to be root, shall find its own there.
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let programs = together(&temporary.path().join("programs"));
    let data = temporary.path().join("data");
    let picture = temporary.path().join("portrait.png");
    fs::write(&picture, paint::crop(255, 1)).expect("the folder is writable");
    for life in 1..=2 {
        let log = temporary.path().join(format!("life-{life}.log"));
        let arguments = [
            "--model",
            "scripted",
            "--workers",
            "1",
            "--partitions",
            "2",
            "--data",
            &data.display().to_string(),
        ];
        let mut fleet =
            Server::start("the fleet", programs.join("fleet"), arguments, &log).expect("it starts");
        fleet.wait_ready(DEADLINE, || said(&log).contains("Ctrl-C drains")).expect("a fleet is ready");
        let said_by_now = said(&log);
        assert!(said_by_now.contains("a fleet is ready after"), "{said_by_now}");
        if life == 1 {
            let submitted =
                run(&said_by_now, "submit", &["--id", "portrait", &picture.display().to_string()]);
            assert!(submitted.contains("portrait"), "{submitted}");
        }
        // The second life knows it from the first.
        let listed = until("the verdict is there", DEADLINE, || {
            let listed = run(&said_by_now, "list", &[]);
            listed.contains("portrait").then_some(listed)
        });
        assert!(listed.contains("FORGED") || listed.contains("forged"), "{listed}");
        run(&said_by_now, "verify", &[]);

        let family = descendants(fleet.id());
        assert!(family.len() >= 6, "Kafka, S3, PostgreSQL, Prometheus and the services are {family:?}");
        fleet.signal(Signal::Interrupt).expect("it is there");
        let status = fleet.wait(DEADLINE).expect("it ends");
        assert!(status.success(), "{status}:\n{}", said(&log));
        assert_eq!(said(&log).matches(": exit code 0").count(), 3, "{}", said(&log));
        until("nobody is left", DEADLINE, || family.iter().all(is_gone).then_some(()));
        assert!(!data.join("connection.toml").exists(), "nobody answers there any more");
    }
}

/// The programs in one folder, as `make fleet` builds them: with a worker that judges by script.
fn together(folder: &Path) -> PathBuf {
    fs::create_dir_all(folder).expect("a folder");
    let ours = Path::new(env!("CARGO_BIN_EXE_fleet")).to_owned();
    for program in
        [ours, binaries::worker(), binaries::scheduler(), binaries::query(), binaries::touchstone()]
    {
        fs::copy(&program, folder.join(program.file_name().expect("a program has a name"))).expect("a copy");
    }
    folder.to_owned()
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// Runs the command that the announcement proposes, with these arguments instead of its own.
fn run(announcement: &str, subcommand: &str, arguments: &[&str]) -> String {
    let mut lines = announcement.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let proposed = lines.find(|words| words.get(3) == Some(&subcommand));
    let words = proposed.unwrap_or_else(|| panic!("{subcommand} is proposed in {announcement}"));
    let output = Command::new(words[0]).args(&words[1..4]).args(arguments).output().expect("it runs");
    let (told, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{subcommand}: {told}{words}");
    told.into_owned()
}

/// A process: its id, and when it began, so that a later one of this id is somebody else.
type Process = (u32, String);

/// Everybody whom this process, or one of these, has started and who is there.
fn descendants(of: u32) -> BTreeSet<Process> {
    let there: Vec<(u32, u32, String)> = fs::read_dir("/proc")
        .expect("Linux")
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let (parent, began) = stat(id)?;
            Some((id, parent, began))
        })
        .collect();
    let mut family = BTreeSet::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        for (id, _, began) in there.iter().filter(|(_, its, _)| *its == parent) {
            family.insert((*id, began.clone()));
            parents.push(*id);
        }
    }
    family
}

/// Parent and beginning, from proc(5).
fn stat(id: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields.get(1)?.parse().ok()?, (*fields.get(19)?).to_owned()))
}

fn is_gone((id, began): &Process) -> bool {
    stat(*id).is_none_or(|(_, now)| now != *began)
}
