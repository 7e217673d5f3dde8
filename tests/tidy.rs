//! Tidiness is a test: arrows between crates, where heavy dependencies may live, file sizes, crate docs, names, that
//! the lanes share their dependencies, and that the README speaks of commands that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// A file longer than this has a second subject.
const LINES_MAX: usize = 800;

/// Who may know whom, development dependencies apart. A new arrow is a decision: say why in ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("forensics", &[]),
    ("ops", &[]),
    ("proto", &["forensics", "ops"]),
    ("stream", &["ops"]),
    ("media", &["forensics", "ops"]),
    ("models", &["forensics", "ops"]),
    ("worker", &["stream", "media", "models", "forensics", "proto", "ops"]),
    ("scheduler", &["stream", "forensics", "proto", "ops"]),
    ("query", &["stream", "forensics", "proto", "ops"]),
    ("cli", &["proto", "media", "models", "ops", "forensics"]),
    (
        "standalone",
        &["worker", "scheduler", "query", "stream", "media", "models", "proto", "ops", "forensics"],
    ),
    ("trainer", &["models", "media", "forensics"]),
    ("lanes", &[]),
    ("testbed", &[]),
    ("e2e", &["testbed", "stream", "proto", "ops", "forensics", "media"]),
];

/// One heavy thing per crate; everything else compiles bare.
const HEAVY: &[(&str, &[&str])] = &[
    ("tch", &["models", "trainer"]),
    ("torch-sys", &["models"]),
    ("rdkafka", &["stream", "testbed"]),
    ("tokio-postgres", &["query"]),
    ("rusqlite", &["stream", "query"]),
    ("aws-sdk-s3", &["media"]),
    ("zune-jpeg", &["media"]),
    ("s3s", &["standalone"]),
];

const BANNED_NAMES: &[&str] = &["common", "util", "utils", "helpers", "core", "types", "misc"];

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata answers")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

fn packages(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata.packages.iter()
}

/// Every file of the tree with this ending, build outputs, dot folders and other people's code apart.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("folder is readable") {
        let path = entry.expect("entry is readable").path();
        let name = path.file_name().expect("has a name").to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "third_party" && !name.starts_with('.') {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

fn none_of(what: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{what}:\n  {}", offenders.join("\n  "));
}

#[test]
fn crates_know_only_whom_they_may() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = packages(&metadata).map(|package| package.name.as_str()).collect();
    assert_eq!(ours, ARROWS.iter().map(|(name, _)| *name).collect(), "ARROWS lists every crate");
    let mut offenders = Vec::new();
    for package in packages(&metadata) {
        let allowed = ARROWS.iter().find(|(name, _)| *name == package.name.as_str()).expect("listed").1;
        let known = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        for dependency in known.filter(|d| ours.contains(d.name.as_str())) {
            if !allowed.contains(&dependency.name.as_str()) {
                offenders.push(format!("{} ─► {}", package.name, dependency.name));
            }
        }
    }
    none_of("arrows that are not drawn in ARCHITECTURE.md", &offenders);
}

#[test]
fn heavy_dependencies_live_in_one_place() {
    let metadata = metadata();
    let mut offenders = Vec::new();
    for package in packages(&metadata) {
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            if let Some((_, homes)) = HEAVY.iter().find(|(name, _)| *name == dependency.name)
                && !homes.contains(&package.name.as_str())
            {
                offenders.push(format!("{} depends on {}", package.name, dependency.name));
            }
        }
    }
    none_of("heavy dependencies outside their crate", &offenders);
}

#[test]
fn no_file_has_a_second_subject() {
    let long = |path: &PathBuf| {
        let lines = fs::read_to_string(path).expect("source is UTF-8").lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines", path.display()))
    };
    let offenders: Vec<_> = files(&root(), ".rs").iter().filter_map(long).collect();
    none_of("files beyond 800 lines", &offenders);
}

#[test]
fn every_crate_introduces_itself() {
    let mut offenders = Vec::new();
    for lib in files(&root(), "lib.rs").iter().filter(|path| path.ends_with("src/lib.rs")) {
        let text = fs::read_to_string(lib).expect("source is UTF-8");
        let doc: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let paragraphs = doc.split(|line| line.trim() == "//!").filter(|p| !p.is_empty()).count();
        if paragraphs < 5 {
            let path = lib.display();
            offenders.push(format!(
                "{path}: {paragraphs} of 5 paragraphs (what it does · what comes in and goes out · what it never \
                 does · where to start reading · what to know before changing it)"
            ));
        }
        if text.lines().any(|line| line.starts_with("fn ") || line.starts_with("pub fn ")) {
            offenders.push(format!("{}: lib.rs is a table of contents, without logic", lib.display()));
        }
    }
    none_of("crates without an introduction", &offenders);
}

#[test]
fn no_name_says_nothing() {
    let metadata = metadata();
    let mut offenders: Vec<String> = packages(&metadata)
        .filter(|package| BANNED_NAMES.contains(&package.name.as_str()))
        .map(|package| format!("crate {}", package.name))
        .collect();
    for path in files(&root(), ".rs") {
        let names = [path.file_stem(), path.parent().and_then(Path::file_name)];
        if names.into_iter().flatten().any(|name| BANNED_NAMES.iter().any(|banned| name == *banned)) {
            offenders.push(path.display().to_string());
        }
    }
    none_of("names that say nothing", &offenders);
}

#[test]
fn no_test_is_switched_off() {
    let mark = concat!("#[", "ignore");
    let off = |path: &PathBuf| fs::read_to_string(path).expect("source is UTF-8").contains(mark);
    let offenders: Vec<_> =
        files(&root(), ".rs").iter().filter(|p| off(p)).map(|p| p.display().to_string()).collect();
    none_of("tests that are switched off", &offenders);
}

/// Otherwise what stands above a dependency whose features differ is built twice.
#[test]
fn both_lanes_build_their_dependencies_alike() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("Makefile is there");
    let [bare, torch] = ["BARE := ", "TORCH := "].map(|lane| {
        let selection = makefile.lines().find_map(|line| line.strip_prefix(lane)).expect("a lane");
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--locked", "--prefix", "none", "--format", "{p}\t{f}"]).current_dir(root());
        let output = tree.args(selection.split(' ')).output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("cargo speaks UTF-8")
    });
    let features = |lane: &str| -> BTreeSet<(String, String)> {
        let foreign = lane.lines().filter(|line| !line.contains(" (/"));
        let parts = foreign.map(|line| line.trim_end_matches(" (*)").split_once('\t').unwrap_or((line, "")));
        parts.map(|(package, features)| (package.to_owned(), features.to_owned())).collect()
    };
    let (bare, torch) = (features(&bare), features(&torch));
    let in_torch: BTreeSet<&String> = torch.iter().map(|(package, _)| package).collect();
    let offenders: Vec<String> = bare
        .iter()
        .filter(|part| in_torch.contains(&part.0) && !torch.contains(part))
        .map(|(package, features)| format!("{package} [{features}]"))
        .collect();
    none_of("built twice; ask for what the other lane has in tests/lanes/Cargo.toml", &offenders);
}

#[test]
fn the_readme_speaks_of_commands_that_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md is there");
    let makefile = fs::read_to_string(root().join("Makefile")).expect("Makefile is there");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .filter(|target| target.bytes().all(|b| b.is_ascii_lowercase()))
        .collect();
    let mut offenders = Vec::new();
    for (before, _) in readme.match_indices("make ") {
        let starts_a_command = readme[..before].ends_with(['`', '\n', ' ']) && in_code(&readme, before);
        let word: String = readme[before + 5..].chars().take_while(char::is_ascii_lowercase).collect();
        if starts_a_command && !targets.contains(word.as_str()) {
            offenders.push(format!("make {word}"));
        }
    }
    let known = cli::command();
    let subcommands: BTreeSet<&str> = known.get_subcommands().map(|command| command.get_name()).collect();
    for (before, _) in readme.match_indices("touchstone ") {
        let word: String =
            readme[before + 11..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        let named = word.starts_with(|c: char| c.is_ascii_lowercase());
        if in_code(&readme, before) && named && !subcommands.contains(word.as_str()) {
            offenders.push(format!("touchstone {word}"));
        }
    }
    none_of("commands of the README that do not exist", &offenders);
}

/// Whether the byte at `index` lies in a code span or a fenced block.
fn in_code(markdown: &str, index: usize) -> bool {
    let before = &markdown[..index];
    let fenced = before.matches("\n```").count() % 2 == 1;
    let line = &before[before.rfind('\n').map_or(0, |at| at + 1)..];
    fenced || line.matches('`').count() % 2 == 1
}
