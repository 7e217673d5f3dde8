//! Which partition a key belongs to: exactly as Java's default partitioner, so that producers in other languages
//! and ours put one media into one partition.

/// The partition of a key among `partitions`: `(murmur2(key) & 0x7fff_ffff) % partitions`, as
/// `org.apache.kafka.common.utils.Utils.toPositive` and `BuiltInPartitioner.partitionForKey` do it.
///
/// # Panics
/// When `partitions` is not positive: topics have at least one.
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Kafka's murmur2: 32 bits, little-endian words, seed 0x9747b28c (`Utils.murmur2`).
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Java hashes the array's int length: the cast wraps only where Java has no array.
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_kafkas_own_test_expects() {
        // The vectors of org.apache.kafka.common.utils.UtilsTest.testMurmur2.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn negative_hashes_lose_their_sign_bit_only() {
        // "foobar" hashes below zero: Java masks the sign, it does not negate.
        assert_eq!(partition_of_key(b"foobar", 1000), (-790_332_482i32 & i32::MAX) % 1000);
        assert_eq!(partition_of_key(b"", 1), 0);
    }
}
