use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;
use zip::CompressionMethod::{Deflated, Stored};

use super::writer::{Node, Saved, Storage, Tensor, pickle, zip_of};
use super::*;

/// `{"epoch": 3, "state_dict": {"a": 2×3, "b": a transposed view of it, "n": int64 scalar}}`.
fn sample() -> Saved {
    let text = |text: &str| Node::Text(text.to_owned());
    let transposed = Tensor { storage: 0, offset: 0, shape: vec![3, 2], strides: vec![1, 3] };
    let weights = Node::StateDict(vec![
        ("a".to_owned(), Node::Parameter(Tensor::whole(0, &[2, 3]))),
        ("b".to_owned(), Node::Tensor(transposed)),
        ("n".to_owned(), Node::Tensor(Tensor::whole(1, &[]))),
    ]);
    Saved {
        root: Node::Dict(vec![
            (text("epoch"), Node::Int(3)),
            (text("betas"), Node::Tuple(vec![Node::Float(0.9), Node::None])),
            (text("notes"), Node::List(vec![text("x"), Node::Bool(true)])),
            (text("state_dict"), weights),
        ]),
        storages: vec![Storage::floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), Storage::longs(&[7])],
    }
}

fn read(bytes: &[u8]) -> Result<Checkpoint, PickleError> {
    Checkpoint::read_from(Cursor::new(bytes), Limits::default())
}

fn message(bytes: &[u8]) -> String {
    match read(bytes).map(|checkpoint| checkpoint.state_dict().err()) {
        Err(error) | Ok(Some(error)) => error.to_string(),
        Ok(None) => "no error".to_owned(),
    }
}

fn floats(view: &TensorView) -> Vec<f32> {
    view.row_major().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn both_formats_stored_or_deflated_give_the_same_tensors() {
    for bytes in [sample().zip(Stored), sample().zip(Deflated), sample().legacy()] {
        let tensors = read(&bytes).unwrap().state_dict().unwrap();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["a", "b", "n"]);
        assert_eq!(tensors["a"].shape(), [2, 3]);
        assert_eq!(floats(&tensors["a"]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(tensors["b"].shape(), [3, 2]);
        assert_eq!(floats(&tensors["b"]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(tensors["n"].element(), ElementType::I64);
        assert_eq!(tensors["n"].row_major().as_ref(), 7_i64.to_le_bytes());
    }
}

/// Four files that PyTorch 2.11 wrote: a module's state dict with views, parameters and four float types; flat, and
/// nested beside an optimiser, arguments and numbers; in both formats.
#[test]
fn what_pytorch_wrote_is_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for name in ["flat", "nested", "flat-legacy", "nested-legacy"] {
        let checkpoint = Checkpoint::read(&fixtures.join(format!("torch-2.11-{name}.pth"))).unwrap();
        let tensors = checkpoint.state_dict().unwrap();
        assert_eq!(tensors.len(), 14, "{name}");
        let expected: Vec<f32> = (0..54).map(|value| value as f32 / 8.0).collect();
        assert_eq!(tensors["conv.weight"].shape(), [3, 2, 3, 3]);
        assert_eq!(floats(&tensors["conv.weight"]), expected);
        assert_eq!(floats(&tensors["last"]), expected, "channels last is a matter of strides");
        assert_eq!(floats(&tensors["bn.running_mean"]), [1.0, 2.0, 3.0]);
        assert_eq!(floats(&tensors["column"]), [1.0, 5.0, 9.0]);
        assert_eq!(floats(&tensors["transposed"])[..4], [0.0, 4.0, 8.0, 1.0]);
        assert_eq!(floats(&tensors["parameter"]), [1.5, 2.5]);
        assert_eq!(floats(&tensors["gamma"]), [0.25]);
        assert_eq!(tensors["half"].row_major().as_ref(), [0x00, 0x38, 0x00, 0xc0]);
        assert_eq!(tensors["bf16"].row_major().as_ref(), [0x00, 0x3f, 0x00, 0xc0]);
        assert_eq!(tensors["double"].row_major().as_ref(), 0.1_f64.to_le_bytes());
        assert_eq!(tensors["bn.num_batches_tracked"].element(), ElementType::I64);
    }
}

#[test]
fn a_global_outside_the_list_is_named_and_never_called() {
    let hostile = Saved {
        root: Node::Dict(vec![(
            Node::Text("a".to_owned()),
            Node::Call("os", "system", vec![Node::Text("touch /tmp/owned".to_owned())]),
        )]),
        storages: Vec::new(),
    };
    for bytes in [hostile.zip(Stored), hostile.legacy()] {
        let error = message(&bytes);
        assert!(error.contains("os.system"), "{error}");
    }
    for (module, name) in [("builtins", "eval"), ("torch.jit", "load"), ("torch.storage", "_load_from_bytes")]
    {
        let root = Node::Call(module, name, Vec::new());
        let error = message(&Saved { root, storages: Vec::new() }.zip(Stored));
        assert!(error.contains(&format!("{module}.{name}")), "{error}");
    }
}

#[test]
fn opcodes_and_persistent_objects_that_no_checkpoint_needs_are_refused() {
    // INST, OBJ, EXT1, text GET, a protocol-0 integer, out-of-band buffers.
    for opcode in [b'i', b'o', 0x82, b'g', b'I', 0x97] {
        let file = zip_of(&[("data.pkl".to_owned(), vec![0x80, 2, opcode, 0, 0, b'\n', b'.'])], Stored);
        let error = message(&file);
        assert!(error.contains(&format!("{opcode:#04x}")), "{error}");
    }
    let mut whole_module = vec![0x80, 2];
    whole_module.extend_from_slice(b"(X\x06\0\0\0moduletQ.");
    let error = message(&zip_of(&[("data.pkl".to_owned(), whole_module)], Stored));
    assert!(error.contains("persistent object \"module\""), "{error}");
}

#[test]
fn views_outside_their_storage_are_refused() {
    let view = |offset: i32, shape: Vec<i32>, strides: Vec<i32>| {
        let mut saved = sample();
        saved.root = Node::Dict(vec![(
            Node::Text("a".to_owned()),
            Node::Tensor(Tensor { storage: 0, offset, shape, strides }),
        )]);
        message(&saved.zip(Stored))
    };
    assert_eq!(view(4, vec![2], vec![1]), "no error");
    assert_eq!(view(0, vec![0, 5], vec![1, 1]), "no error");
    for error in [
        view(5, vec![2], vec![1]),
        view(0, vec![2, 3], vec![4, 1]),
        view(0, vec![i32::MAX; 4], vec![0; 4]),
        view(0, vec![1000], vec![0]),
        view(0, vec![2], vec![i32::MAX]),
    ] {
        assert!(error.contains("does not fit a storage of 6 elements"), "{error}");
    }
    assert!(view(-1, vec![1], vec![1]).contains("a size is needed"));
    assert!(view(0, vec![1; 9], vec![1; 9]).contains("at most eight"));
}

#[test]
fn claimed_lengths_take_no_memory() {
    let refused = |pickle: Vec<u8>| message(&zip_of(&[("data.pkl".to_owned(), pickle)], Stored));
    let mut text = vec![0x80, 4, 0x8d];
    text.extend_from_slice(&u64::MAX.to_le_bytes());
    assert!(refused(text).contains("cannot read the checkpoint"));
    let mut number = vec![0x80, 2, 0x8b];
    number.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(refused(number).contains("a number of 4294967295 bytes"));
    let huge = b"\x80\x02(X\x07\0\0\0storagectorch\nDoubleStorage\nX\x01\0\0\x000X\x03\0\0\0cpu\x8a\x07\0\0\0\0\0\0\x10tQ.";
    assert!(refused(huge.to_vec()).contains("exceeds the limit of 2147483648 bytes of tensors"));
}

#[test]
fn sharing_and_cycles_are_bounded() {
    // "Billion laughs": each tuple holds the one before it twice, thirty times over.
    let mut laughs = vec![0x80, 2, b')', b'q', 0];
    for _ in 0..30 {
        laughs.extend_from_slice(&[b'h', 0, b'h', 0, 0x86, b'q', 0]);
    }
    laughs.push(b'.');
    let error = message(&zip_of(&[("data.pkl".to_owned(), laughs)], Stored));
    assert!(error.contains("exceeds the limit of 1048576 objects"), "{error}");
    let cycle = vec![0x80, 2, b']', b'q', 0, b'h', 0, b'a', b'.'];
    let error = message(&zip_of(&[("data.pkl".to_owned(), cycle)], Stored));
    assert!(error.contains("levels of nesting"), "{error}");
    // One long list, copied by many calls.
    let mut copies = vec![0x80, 2, b']', b'q', 0, b'('];
    copies.extend(std::iter::repeat_n(b'N', 400_000));
    copies.push(b'e');
    for _ in 0..10 {
        copies.extend_from_slice(b"cbuiltins\nset\nh\0\x85R");
    }
    copies.push(b'.');
    let error = message(&zip_of(&[("data.pkl".to_owned(), copies)], Deflated));
    assert!(error.contains("objects"), "{error}");
}

#[test]
fn files_of_other_kinds_are_told_apart() {
    assert_eq!(message(b"hello"), "not a PyTorch checkpoint: neither a zip archive nor a pickle");
    assert!(message(&[]).contains("not a PyTorch checkpoint"));
    assert!(message(&pickle(&Node::Int(5))).contains("not a PyTorch checkpoint"));
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(message(&tar).contains("tar checkpoint"));
    let script = [("data.pkl", &b"\x80\x02N."[..]), ("constants.pkl", &b""[..])];
    let script = script.map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
    assert!(message(&zip_of(&script, Stored)).contains("TorchScript"));
    let big = [("data.pkl", &b"\x80\x02N."[..]), ("byteorder", &b"big"[..])];
    let big = big.map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
    assert!(message(&zip_of(&big, Stored)).contains("byte order \"big\""));
    let error = read(&zip_of(&[("readme.txt".to_owned(), Vec::new())], Stored)).unwrap_err();
    assert!(matches!(error, PickleError::NotACheckpoint), "{error}");
}

#[test]
fn a_state_dict_is_found_under_the_usual_names_only() {
    let text = |text: &str| Node::Text(text.to_owned());
    let tensor = || Node::Dict(vec![(text("w"), Node::Tensor(Tensor::whole(0, &[6])))]);
    let nested = |root: Node| message(&Saved { root, storages: sample().storages[..1].to_vec() }.zip(Stored));
    for name in ["state_dict", "model", "net"] {
        assert_eq!(
            nested(Node::Dict(vec![(text("epoch"), Node::Int(1)), (text(name), tensor())])),
            "no error"
        );
    }
    let twice = Node::Dict(vec![(text("model"), Node::Dict(vec![(text("state_dict"), tensor())]))]);
    assert_eq!(nested(twice), "no error");
    assert!(nested(Node::Dict(vec![(text("other"), tensor())])).contains("the checkpoint holds other"));
    assert!(nested(Node::List(vec![])).contains("the checkpoint is a list"));
    let mixed =
        Node::Dict(vec![(text("w"), Node::Tensor(Tensor::whole(0, &[6]))), (text("lr"), Node::Float(0.1))]);
    assert!(nested(mixed).contains("lr is a number"));
}

#[test]
fn a_damaged_storage_is_refused() {
    let sample = sample();
    let mut flipped = sample.zip(Stored);
    let values = &sample.storages[0].bytes;
    let at = flipped.windows(values.len()).position(|window| window == values.as_slice()).unwrap();
    flipped[at + 9] ^= 1;
    assert!(message(&flipped).contains("checksum"), "{}", message(&flipped));
    let legacy = sample.legacy();
    assert!(message(&legacy[..legacy.len() - 1]).contains("8 bytes declared, 7 found"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damaged files are errors or read as something else; they never panic, and the limits keep memory small.
    #[test]
    fn damage_never_panics(cut in 0.0_f64..1.5, flips in prop::collection::vec((0.0_f64..1.0, 1_u8..), 0..6), format in 0..3) {
        let mut bytes = match format {
            0 => sample().zip(Stored),
            1 => sample().zip(Deflated),
            _ => sample().legacy(),
        };
        for (place, mask) in flips {
            let at = (place * bytes.len() as f64) as usize;
            bytes[at] ^= mask;
        }
        bytes.truncate((cut * bytes.len() as f64) as usize);
        let small = Limits { pickle_bytes: 1 << 16, objects: 4096, depth: 16, storage_bytes: 1 << 20 };
        let checkpoint = Checkpoint::read_from(Cursor::new(bytes), small);
        if let Ok(tensors) = checkpoint.and_then(|checkpoint| checkpoint.state_dict()) {
            prop_assert!(tensors.values().map(|tensor| tensor.row_major().len()).sum::<usize>() <= 1 << 20);
        }
    }

    /// Any bytes at all as a pickle.
    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut pickle = vec![0x80, 2];
        pickle.extend(noise);
        let small = Limits { pickle_bytes: 1 << 16, objects: 4096, depth: 16, storage_bytes: 1 << 20 };
        let file = zip_of(&[("data.pkl".to_owned(), pickle.clone())], Stored);
        drop(Checkpoint::read_from(Cursor::new(file), small));
        drop(Checkpoint::read_from(Cursor::new(pickle), small));
    }
}
