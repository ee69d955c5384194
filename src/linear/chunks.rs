//! How rows are cut into chunks, which never straddle two sequences.

/// Chunks of at most `size` rows over sequences of these lengths, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunks {
    pub size: usize,
    pub count: usize,
    pub sequences: usize,
    /// One entry a chunk, then one a sequence: `table` of `linear/chunk.wgsl`.
    pub table: Vec<[u32; 4]>,
}

impl Chunks {
    pub(super) fn new(size: usize, sequences: &[usize]) -> Chunks {
        let mut table = Vec::new();
        let mut ranges = Vec::new();
        let mut start = 0;
        for (sequence, &len) in sequences.iter().enumerate() {
            let first = table.len();
            for at in (0..len).step_by(size) {
                table.push([(start + at) as u32, size.min(len - at) as u32, sequence as u32, 0]);
            }
            ranges.push([first as u32, table.len() as u32, start as u32, len as u32]);
            start += len;
        }
        let count = table.len();
        table.extend(ranges);
        Chunks { size, count, sequences: sequences.len(), table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_with_their_sequence() {
        let chunks = Chunks::new(16, &[20, 0, 16]);
        assert_eq!(chunks.count, 3);
        assert_eq!(
            chunks.table,
            [[0, 16, 0, 0], [16, 4, 0, 0], [20, 16, 2, 0], [0, 2, 0, 20], [2, 2, 20, 0], [2, 3, 20, 16]]
        );
    }
}
