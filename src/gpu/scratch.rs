//! Workspace that plans hand down. A driver takes milliseconds for new memory (an H100's 4 to 5 for the block that 50 MB lie in), which is
//! as long as the call may take that it is for.

use std::sync::Mutex;

/// What plans that were dropped wrote to, for plans to come: wgpu orders calls by the buffers they share, whoever's they are.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// Latest first.
    buffers: Vec<wgpu::Buffer>,
    /// The most bytes that a plan handed down.
    most: u64,
}

impl Scratch {
    /// Copied from by recordings of plans (`shaders.rs`).
    pub(crate) const USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC);

    /// A buffer of exactly this size, if one was handed down. Whatever was written to it last lies in it.
    pub(crate) fn take(&self, size: u64) -> Option<wgpu::Buffer> {
        let buffers = &mut self.held().buffers;
        let found = buffers.iter().position(|buffer| buffer.size() == size)?;
        Some(buffers.remove(found))
    }

    /// Keeps a plan's, and of those before as many as twice the most of a plan leaves room for.
    pub(crate) fn hand_down(&self, mut buffers: Vec<wgpu::Buffer>) {
        let mut held = self.held();
        held.most = held.most.max(buffers.iter().map(wgpu::Buffer::size).sum());
        buffers.append(&mut held.buffers);
        let mut room = 2 * held.most;
        let fits = |buffer: &wgpu::Buffer| {
            let fits = buffer.size() <= room;
            room = room.saturating_sub(buffer.size());
            fits
        };
        held.buffers = buffers.into_iter().take_while(fits).collect();
    }

    pub(super) fn forget(&self) {
        *self.held() = Held::default();
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::shaders::Recorder;
    use crate::{Attention, Context, DType, Layout, Tensor};

    #[test]
    fn a_plan_takes_what_another_left() {
        let ctx = Context::that_runs_nothing();
        let layout = |len| Layout::new(DType::F32, [1, 2, len, 16]).unwrap();
        let plan = |len: usize| {
            let [q, kv] = [layout(4), layout(len)];
            Attention::new(q, kv, kv).splits(2).plan(&ctx).unwrap()
        };
        let first = plan(64);
        let buffers = first.scratch.clone();
        assert!(!buffers.is_empty());
        let beside = plan(64);
        assert!(
            beside.scratch.iter().all(|buffer| !buffers.contains(buffer)),
            "two plans that are there share nothing"
        );
        drop(first);
        let next = plan(96);
        assert_eq!(next.scratch, buffers, "whatever the keys, parts of as many rows are as large");
    }

    #[test]
    fn a_recording_copies_it() {
        let recorder = Recorder::default();
        let ctx = recorder.context(&Context::that_runs_nothing());
        let x = Tensor::zeros(&ctx, DType::F32, [1, 2, 40, 16]).unwrap();
        Attention::new(&x, &x, &x).splits(2).run(&ctx).unwrap();
        assert_eq!(recorder.recording().dispatches.len(), 2);
    }

    #[test]
    fn little_is_held() {
        let ctx = Context::that_runs_nothing();
        let buffer = |size| ctx.create_buffer("some", size, Scratch::USAGE).unwrap();
        let scratch = Scratch::default();
        assert_eq!(scratch.take(16), None);
        scratch.hand_down(vec![buffer(64), buffer(32)]);
        scratch.hand_down(vec![buffer(16)]);
        scratch.hand_down(vec![buffer(48)]);
        assert!(scratch.take(64).is_some(), "48 + 16 + 64 are within 192");
        scratch.hand_down(vec![buffer(80)]);
        scratch.hand_down(vec![buffer(64)]);
        assert_eq!(scratch.take(16), None, "64 + 80 + 48 are 192");
        assert!(scratch.take(48).is_some() && scratch.take(80).is_some());
        scratch.forget();
        assert_eq!(scratch.take(64), None);
    }
}
