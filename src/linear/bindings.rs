//! How kernels bind tensors: once, or where one is larger than a binding, several times, each a window of so many heads, counted through
//! all batches.
//!
//! A head and its batch say in which window it lies, so that one kernel reaches all of them. Windows overlap where heads lie abreast; each
//! head is read and written through its own. Parts, which follow one another, are for what even so is too large.

use std::ops::Range;

use super::operands::Access;
use crate::gpu::layout::Layout;
use crate::gpu::window::Window;

/// Bindings that a tensor takes at most: its view tells how far two more are shifted.
const MOST: usize = 3;

/// What bindings are called, behind the operand's name.
pub(super) const SUFFIXES: [&str; MOST] = ["data", "second_data", "third_data"];

/// How a kernel binds an operand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bindings {
    /// The first binding's number; others of the same tensor follow.
    pub first: usize,
    pub windows: usize,
    /// The number of its view, where it has one.
    pub view: usize,
    /// How many elements view and bindings count as one.
    pub unit: usize,
}

impl Bindings {
    /// The bindings; of several, functions that choose by a window's number.
    pub(super) fn declare(self, name: &str, access: Access, element: &str) -> String {
        let mode = if access.write { "read_write" } else { "read" };
        let names = || SUFFIXES[..self.windows].iter().map(|suffix| format!("{name}_{suffix}"));
        let mut text: String = names()
            .enumerate()
            .map(|(n, data)| {
                let binding = self.first + n;
                format!("@group(0) @binding({binding}) var<storage, {mode}> {data}: array<{element}>;\n")
            })
            .collect();
        if self.windows == 1 {
            return text;
        }
        let choose = |each: &dyn Fn(String) -> String| -> String {
            let one = |(n, data): (usize, String)| {
                let other = if n > 0 { "else " } else { "" };
                format!("    {other}if (window == {n}u) {{ {} }}\n", each(data))
            };
            names().enumerate().map(one).collect()
        };
        text += &format!(
            "fn {name}_in(window: u32, n: u32) -> {element} {{\n    var x = {element}();\n{}    return x;\n}}\n",
            choose(&|data| format!("x = {data}[n];"))
        );
        if access.write {
            text += &format!(
                "fn put_{name}_in(window: u32, n: u32, x: {element}) {{\n{}}}\n",
                choose(&|data| format!("{data}[n] = x;"))
            );
        }
        text
    }

    /// The head, counted through all batches, whose matrix of the plan's own is meant: of several windows, through that one.
    pub(super) fn head_of_own(self, key_heads: bool) -> String {
        let (head, window) =
            if key_heads { ("at.key_bh", "params.window / params.group") } else { ("at.bh", "params.window") };
        if self.windows == 1 { head.into() } else { format!("({head} - at.window * ({window}))") }
    }

    /// Where in its window an element of the caller's lies that lies here in the tensor.
    pub(super) fn index(self, of_tensor: String) -> String {
        if self.windows == 1 {
            return of_tensor;
        }
        format!("{of_tensor} - window_shift(params.views[{}], at.window)", self.view)
    }

    pub(super) fn element(self, name: &str, index: &str) -> String {
        if self.windows == 1 { format!("{name}_data[{index}]") } else { format!("{name}_in(at.window, {index})") }
    }

    pub(super) fn put(self, name: &str, index: &str, value: &str) -> String {
        if self.windows == 1 {
            format!("{name}_data[{index}] = {value};")
        } else {
            format!("put_{name}_in(at.window, {index}, {value});")
        }
    }
}

/// Elements that these heads of a tensor span, from the first to behind the last.
fn span(layout: &Layout, heads: Range<usize>) -> Range<usize> {
    let per_batch = layout.shape()[1].max(1);
    let one = |n: usize| layout.part(n / per_batch..n / per_batch + 1, n % per_batch..n % per_batch + 1);
    let start = heads.clone().map(|n| one(n).offset()).min().unwrap_or(layout.offset());
    start..heads.map(|n| one(n).end()).max().unwrap_or(start)
}

/// Bytes of a binding over these elements, wherever it may begin.
fn bytes(layout: &Layout, elements: Range<usize>) -> u64 {
    const ALIGNMENT: u64 = 256;
    (elements.len() * layout.dtype().size()) as u64 + ALIGNMENT
}

/// Bytes that a binding over a whole tensor takes at most.
pub(super) fn whole_bytes(layout: &Layout) -> u64 {
    bytes(layout, layout.offset()..layout.end().max(layout.offset()))
}

/// A tensor that kernels bind.
pub(super) struct Bound {
    pub name: &'static str,
    pub layout: Layout,
    /// Value heads that share one of its own.
    pub shared: usize,
}

/// Value heads a window of all tensors that no binding takes whole, and of the plan's own matrices, of so many bytes a head: in the fewest
/// windows that the device binds. `spare` is how many storage buffers more a kernel may bind.
pub(super) fn heads_of_window(
    tensors: &[Bound],
    own: &[u64],
    [heads, group]: [usize; 2],
    limit: u64,
    spare: usize,
) -> Option<usize> {
    let large_own = own.iter().filter(|&&bytes| heads as u64 * bytes > limit).count();
    let large: Vec<&Bound> = tensors.iter().filter(|tensor| whole_bytes(&tensor.layout) > limit).collect();
    (1..=MOST).map(|windows| heads.div_ceil(windows).next_multiple_of(group)).find(|&per| {
        let windows = heads.div_ceil(per);
        let fits = |Bound { layout, shared, .. }: &&Bound| {
            let (own, per) = (heads / shared, per / shared);
            (0..own).step_by(per).all(|n| bytes(layout, span(layout, n..own.min(n + per))) <= limit)
        };
        let own_fits = own.iter().all(|bytes| heads.min(per) as u64 * bytes <= limit);
        own_fits && (windows - 1) * (large.len() + large_own) <= spare && large.iter().all(fits)
    })
}

/// The windows over a tensor, so many of its heads each. The first has the view, which counts from it and knows how far back the others begin.
pub(super) fn windows(layout: &Layout, per: usize, unit: usize, alignment: u32) -> Vec<Window> {
    let whole = Window::of(layout, unit, alignment);
    let [batch, heads, ..] = layout.shape();
    let all = batch * heads;
    let size = layout.dtype().size();
    let mut windows: Vec<Window> = (0..all)
        .step_by(per)
        .map(|n| {
            let elements = span(layout, n..all.min(n + per));
            let start = (elements.start * size) as u64 / u64::from(alignment) * u64::from(alignment);
            let end = ((elements.end * size) as u64).next_multiple_of(4);
            Window { start, size: end - start, view: whole.view }
        })
        .collect();
    let back = |window: &Window| (window.start.wrapping_sub(whole.start) / (unit * size) as u64) as u32;
    let shifts: Vec<u32> = windows.iter().map(back).collect();
    let shift = |n: usize| shifts.get(n).copied().unwrap_or(0);
    (windows[0].view.second, windows[0].view.third) = (shift(1), shift(2));
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::layout::DType;

    fn bound(layout: Layout, shared: usize) -> Bound {
        Bound { name: "v", layout, shared }
    }

    /// As Vulkan binds them on most cards, by way of wgpu.
    const LIMIT: u64 = (1 << 31) - 4;

    #[test]
    fn the_fewest_windows_that_fit() {
        let per = |shape: [usize; 4], spare| {
            let tensor = bound(Layout::new(DType::F16, shape).unwrap(), 1);
            heads_of_window(&[tensor], &[], [shape[0] * shape[1], 1], LIMIT, spare)
        };
        assert_eq!(per([4, 32, 32768, 128], 8), Some(128));
        // Exactly 2 GiB.
        assert_eq!(per([4, 32, 65536, 128], 8), Some(64));
        assert_eq!(per([4, 32, 65536, 128], 0), None);
        // Half of it a word too long, so thirds.
        assert_eq!(per([1, 127, 131072, 128], 8), Some(43));
        assert_eq!(per([4, 48, 131072, 128], 8), None);
    }

    #[test]
    fn own_matrices_go_in_windows() {
        let per = |bytes: u64, spare| heads_of_window(&[], &[bytes, 100], [12, 2], 1200, spare);
        assert_eq!((per(100, 0), per(101, 1), per(101, 0)), (Some(12), Some(6), None));
        assert_eq!((per(201, 2), per(201, 1), per(301, 9)), (Some(4), None, None));
    }

    #[test]
    fn groups_stay_together() {
        let layout = |heads| Layout::new(DType::F16, [1, heads, 65536, 128]).unwrap();
        let tensors = [bound(layout(66), 2), bound(layout(132), 1)];
        assert_eq!(heads_of_window(&tensors, &[], [132, 2], LIMIT, 8), Some(66));
        assert_eq!(heads_of_window(&tensors, &[], [132, 8], LIMIT, 8), Some(72));
    }

    #[test]
    fn windows_begin_where_bindings_may() {
        // Heads of 120 bytes, the first 40 bytes into the buffer.
        let layout = Layout::strided(DType::F16, [2, 3, 5, 12], [180, 60, 12, 1], 20).unwrap();
        let all = windows(&layout, 2, 4, 256);
        let starts: Vec<[u64; 2]> = all.iter().map(|w| [w.start, w.size]).collect();
        assert_eq!(starts, [[0, 280], [256, 264], [512, 248]]);
        let view = all[0].view;
        assert_eq!((view.offset, view.second, view.third), (5, 32, 64));
        // Token after token the heads of a window span those of others.
        let abreast = Layout::strided(DType::F16, [1, 4, 8, 64], [2048, 64, 256, 1], 0).unwrap();
        let all = windows(&abreast, 2, 8, 256);
        assert_eq!(all.iter().map(|w| [w.start, w.size]).collect::<Vec<_>>(), [[0, 3840], [256, 3840]]);
    }
}
