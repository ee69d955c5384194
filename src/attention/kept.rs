//! What planning makes of masks, kept for plans to come: how tiles are visited, tables, and tile lists, which take a submission to make.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::visit::{Visit, Visiting};
use crate::gpu::layout::DType;
use crate::gpu::tuning::Tile;
use crate::mask::{Mask, Order, RuleData};

/// Masks at most, whatever their size.
const MOST: usize = 64;

/// Bytes that there is room for, however small masks are.
const ROOM: u64 = 4 << 20;

/// The masks that plans of a context visited last, latest first. Masks that read tensors are not among them.
#[derive(Default)]
pub(crate) struct KeptMasks(Mutex<Vec<(MaskKey, Arc<Visiting>)>>);

impl fmt::Debug for KeptMasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeptMasks({})", locked(&self.0).len())
    }
}

/// All that decides how a mask's tiles are visited, and what its lists are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MaskKey {
    pub shape: [usize; 4],
    pub tile: Tile,
    pub pack: usize,
    pub dtype: DType,
    pub visit: Visit,
    pub binding_bytes: u64,
    /// A text of the user's may end its loops early unless it is trusted.
    pub trusted: bool,
    pub order: Option<Order>,
    pub mask: Mask,
}

impl KeptMasks {
    pub(super) fn find(&self, key: &MaskKey) -> Option<Arc<Visiting>> {
        let mut kept = locked(&self.0);
        let at = kept.iter().position(|(known, _)| known == key)?;
        kept[..=at].rotate_right(1);
        Some(kept[0].1.clone())
    }

    /// Keeps a mask, and of those before as many as there is room for: twice the largest, or more.
    pub(super) fn keep(&self, key: MaskKey, visiting: Arc<Visiting>) {
        let mut kept = locked(&self.0);
        // Two threads may have planned it at once.
        kept.retain(|(known, _)| *known != key);
        kept.insert(0, (key, visiting));
        kept.truncate(MOST);
        let largest = kept.iter().map(|(_, visiting)| visiting.bytes()).max().unwrap_or(0);
        let mut room = ROOM.max(2 * largest);
        let fits = kept.iter().take_while(|(_, visiting)| {
            let fits = visiting.bytes() <= room;
            room = room.saturating_sub(visiting.bytes());
            fits
        });
        let fits = fits.count();
        kept.truncate(fits);
    }

    pub(crate) fn forget(&self) {
        locked(&self.0).clear();
    }
}

/// Buffers of a mask's rules, and of the score rules planned with it.
#[derive(Debug, Clone, Default)]
pub(super) struct RuleBuffers {
    pub args: Option<wgpu::Buffer>,
    pub tables: Option<wgpu::Buffer>,
    /// What made the lists in them.
    pub prepared: Vec<String>,
}

impl RuleBuffers {
    pub(super) fn bytes(&self) -> u64 {
        [&self.args, &self.tables].into_iter().flatten().map(wgpu::Buffer::size).sum()
    }
}

/// Those that were made last, with the numbers and tables that they hold.
#[derive(Debug, Default)]
pub(super) struct LastBuffers(Mutex<Option<(RuleData, RuleBuffers)>>);

impl LastBuffers {
    pub(super) fn of(&self, rules: &RuleData) -> Option<RuleBuffers> {
        let last = locked(&self.0);
        last.as_ref().filter(|(known, _)| known.is_same(rules)).map(|(_, buffers)| buffers.clone())
    }

    /// Bytes of all of it, on the device and here.
    pub(super) fn bytes(&self) -> u64 {
        let last = locked(&self.0);
        last.as_ref().map_or(0, |(rules, buffers)| 4 * rules.own_len() as u64 + buffers.bytes())
    }

    /// Once the lists in them have been submitted.
    pub(super) fn keep(&self, rules: &RuleData, buffers: RuleBuffers) {
        *locked(&self.0) = Some((rules.to_compare(), buffers));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Attention, BlockMask, Context, Input, Layout, Neighborhood, Plan, Products, Relative, Score, Tensor, TileClass,
    };

    const LEN: usize = 256;

    const SMALL: Tile = Tile {
        block_q: 32,
        block_kv: 32,
        lanes: 8,
        threads: 64,
        slice_qk: 16,
        slice_v: 8,
        q_resident: false,
        products: Products::Staged,
        v_parts: 1,
    };

    fn layout() -> Layout {
        Layout::new(DType::F32, [1, 2, LEN, 16]).unwrap()
    }

    fn described(mask: Mask) -> Attention {
        Attention::new(layout(), layout(), layout()).mask(mask).visit(Visit::Listed)
    }

    fn tables(plan: &Plan) -> wgpu::Buffer {
        plan.tables().unwrap()
    }

    fn kept(ctx: &Context) -> usize {
        locked(&ctx.kept_masks().0).len()
    }

    /// A mask with as many words of tables as there are tokens, of documents of this length.
    fn documents(each: u32) -> Mask {
        let ids: Vec<u32> = (0..LEN as u32).map(|token| token / each).collect();
        Mask::segments(&ids, &ids)
    }

    #[test]
    fn equal_masks_share_their_lists() {
        let ctx = Context::that_runs_nothing();
        let first = described(documents(64)).plan(&ctx).unwrap();
        let again = described(documents(64)).plan(&ctx).unwrap();
        let before = tables(&first);
        assert_eq!(tables(&again), before);
        assert_eq!(first.prepared(), again.prepared(), "what ran for an earlier plan is told, too");
        assert!(again.workspace_bytes() > before.size(), "and counted");
        drop((first, again));
        let restricted = ctx.restricted(ctx.capabilities().clone()).unwrap();
        assert_eq!(tables(&described(documents(64)).plan(&restricted).unwrap()), before);
    }

    #[test]
    fn whatever_differs_has_lists_of_its_own() {
        let ctx = Context::that_runs_nothing();
        let text = |n: u32| {
            Mask::wgsl(&format!(
                "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool {{ return kv_idx % {n}u == 0u; }}"
            ))
        };
        let grid = |window| Mask::neighborhood(&[16, 16], Neighborhood::new([window, 5]));
        let table = Layout::new(DType::F32, [1, 1, 1, 9]).unwrap();
        let relative = |max| described(documents(64)).score(Score::relative(table, Relative::sequence(max)));
        let long = Layout::new(DType::F32, [1, 2, 2 * LEN, 16]).unwrap();
        let halves = Layout::new(DType::F16, [1, 2, LEN, 16]).unwrap();
        let one = Layout::new(DType::F32, [1, 1, LEN, 16]).unwrap();
        let order: Vec<u32> = (0..LEN as u32).rev().collect();
        let all = [
            described(documents(64)),
            described(documents(32)),
            described(documents(64)).visit(Visit::ListedPartial),
            described(documents(64)).order(Order::tokens(&order)),
            relative(4),
            described(text(2)),
            described(text(3)),
            // SAFETY: the text reads nothing, and nothing is run.
            unsafe { described(text(3)).trust_wgsl() },
            described(grid(5)),
            described(grid(5)).order(Order::sequence()),
            described(grid(7)),
            described(Mask::causal()),
            described(Mask::causal()).tile(SMALL),
            described(Mask::causal()).tile(Tile { block_kv: 64, ..SMALL }),
            Attention::new(halves, halves, halves).mask(Mask::causal()).visit(Visit::Listed).tile(SMALL),
            Attention::new(layout(), one, one).mask(Mask::causal()).visit(Visit::Listed).tile(SMALL).pack_gqa(true),
            Attention::new(layout(), one, one)
                .mask(Mask::causal())
                .visit(Visit::Listed)
                .tile(Tile { block_q: 64, ..SMALL }),
            Attention::new(long, long, long).mask(Mask::causal()).visit(Visit::Listed),
            described(Mask::per_head([Mask::causal(), documents(64)])),
        ];
        let plans: Vec<Plan> = all.iter().map(|attention| attention.plan(&ctx).unwrap()).collect();
        for (n, plan) in plans.iter().enumerate() {
            let shared = plans[..n].iter().position(|other| tables(other) == tables(plan));
            assert_eq!(shared, None, "{n} shares lists");
        }
    }

    /// Kept, they would keep the caller's tensors alive; and what they hold may change.
    #[test]
    fn masks_of_tensors_are_not_kept() {
        let ctx = Context::that_runs_nothing();
        let bits = Tensor::zeros(&ctx, DType::U32, [1, 1, LEN, LEN / 32]).unwrap();
        let some = Tensor::zeros(&ctx, DType::U32, [1, 1, 1, LEN]).unwrap();
        let text = "fn mask_mod(b: u32, h: u32, q_idx: u32, kv_idx: u32) -> bool { return some[kv_idx] == 0u; }";
        let folded = Mask::per_head([Mask::none(), Mask::none()]) & Mask::bits(&bits);
        for mask in [Mask::bits(&bits), Mask::wgsl_with(text, [("some", Input::from(&some))]), folded] {
            for visit in [Visit::Listed, Visit::Every] {
                described(mask.clone()).visit(visit).plan(&ctx).unwrap();
                assert_eq!(kept(&ctx), 0, "{visit:?} {mask:?}");
            }
        }
    }

    /// The least room holds more than twice the largest; two threads may bring the same.
    #[test]
    fn small_ones_are_kept_once() {
        let ctx = Context::that_runs_nothing();
        for n in 1..6 {
            described(documents(n)).plan(&ctx).unwrap();
            assert_eq!(kept(&ctx), n as usize);
        }
        let (key, visiting) = locked(&ctx.kept_masks().0)[2].clone();
        ctx.kept_masks().keep(key, visiting);
        assert_eq!(kept(&ctx), 5);
    }

    #[test]
    fn few_are_kept() {
        let ctx = Context::that_runs_nothing();
        // A list of one tile a row takes a word for each tile of the problem: those of 32768 tokens more than the least room.
        let blocks = |len: usize, column: u32| {
            let x = Layout::new(DType::F32, [1, 1, len, 16]).unwrap();
            let rows = len.div_ceil(64) as u32;
            let list = BlockMask::new(
                [len, len],
                [64, 64],
                1,
                &(0..=rows).collect::<Vec<_>>(),
                &vec![column; rows as usize],
                &vec![TileClass::Full; rows as usize],
            );
            Attention::new(x, x, x).mask(Mask::blocks(&list.unwrap())).tile(SMALL).plan(&ctx).unwrap();
        };
        for (len, column, left, why) in [
            (32768, 0, 1, "the first"),
            (32768, 1, 2, "twice the largest"),
            (32768, 2, 2, "no room for a third"),
            (1024, 0, 2, "nor for a third that is small"),
            (32768, 2, 2, "found again, it counts as the latest"),
            (1024, 1, 3, "which leaves room for small ones"),
            (46336, 0, 4, "twice as large, it leaves room for all of them"),
            (46336, 1, 2, "another leaves none, though nothing has been made of it when it comes"),
        ] {
            blocks(len, column);
            assert_eq!(kept(&ctx), left, "{why}");
        }
        for n in 0..2 * MOST {
            described(Mask::window(n, 7) | Mask::keys(0..1)).visit(Visit::Every).plan(&ctx).unwrap();
        }
        assert!(kept(&ctx) <= MOST);
        ctx.release_kept();
        assert_eq!(kept(&ctx), 0);
    }
}
