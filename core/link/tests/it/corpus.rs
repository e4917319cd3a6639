//! Replays the corpora of the fuzz targets.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use isthmus_link::proto::backoff::Random;
use isthmus_link::proto::exercise;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{} has too few inputs", folder.display());
    inputs
}

/// About a thousand variations of each input, the same in each run.
fn vary(input: &[u8], mut visit: impl FnMut(&[u8])) {
    visit(input);
    let mut bytes = input.to_vec();
    for position in (0..input.len()).step_by(input.len() / 150 + 1) {
        for value in [0, 1, 0x7f, 0x80, 0xff, input[position].wrapping_add(1)] {
            bytes[position] = value;
            visit(&bytes);
        }
        bytes[position] = input[position];
        visit(&input[..position]);
    }
}

#[test]
fn the_decoders_take_the_corpus_and_its_variations() {
    for (_, input) in corpus("link_decode") {
        vary(&input, exercise::decode);
    }
}

#[test]
fn the_state_machines_take_the_corpus_and_its_variations() {
    let start = Instant::now();
    for (_, input) in corpus("link_operations") {
        vary(&input, |bytes| exercise::operate(start, bytes));
    }
}

/// What a fuzzer without coverage would try, the same in each run.
#[test]
fn the_decoders_and_state_machines_take_noise() {
    let start = Instant::now();
    for seed in 0..3000 {
        let mut random = Random::new(seed);
        let length = random.next_u64() % 300;
        let bytes: Vec<u8> = (0..length).map(|_| random.next_u64().to_le_bytes()[0]).collect();
        exercise::decode(&bytes);
        exercise::operate(start, &bytes);
    }
}
