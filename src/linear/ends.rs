//! Where the states that kernels carry come from, and where they go.

use super::check::Problem;
use super::stages::Stages;
use crate::Result;
use crate::gpu::layout::Layout;

/// Storage buffers with which every kernel binds the states it is given and those it writes, each for itself.
const ENOUGH_BUFFERS: u32 = 10;

/// Where the device binds few buffers, states that are given are copied to where the last ones go, and then updated in place.
/// Whether that is so.
pub(super) fn copy_states(p: &Problem, stages: &mut Stages<'_, '_>) -> Result<bool> {
    let allowed = stages.builder.ctx().capabilities().storage_buffers;
    let given = [("state", p.initial, p.last, p.dim_v()), ("z", p.initial_z, p.last_z, 1)];
    if allowed >= ENOUGH_BUFFERS || given.iter().all(|(_, initial, last, _)| initial.is_none() || last.is_none()) {
        return Ok(false);
    }
    stages.builder.note(format!("states are copied first, because the device binds {allowed} storage buffers"));
    let chunks = p.chunks();
    for (name, initial, last, cols) in given {
        if initial.is_none() || last.is_none() {
            continue;
        }
        let text = format!(
            "fn first(at: Place, d: u32, e: u32) -> f32 {{ return initial_{name}(at, d, e); }}\n\
             fn last(at: Place, d: u32, e: u32, x: f32) {{ put_final_{name}(at, d, e, x); }}\n"
        );
        let constants = vec![("ROWS", p.dim_k() as u32), ("COLS", cols as u32)];
        let items = stages.part.instances() * chunks.sequences * p.dim_k() * cols;
        stages.flat(&chunks, "states that are given", "linear/carry.wgsl", constants, text, items)?;
    }
    Ok(true)
}

/// `first` and `last` of the kernels that carry a state: where it comes from and goes to.
pub(super) fn state_ends(p: &Problem, copied: bool) -> String {
    let copied = |initial: Option<Layout>, last: Option<Layout>| copied && initial.is_some() && last.is_some();
    let (initial_state, initial_z) = (
        if copied(p.initial, p.last) { "final_state" } else { "initial_state" },
        if copied(p.initial_z, p.last_z) { "final_z" } else { "initial_z" },
    );
    let initial = |slot: Option<Layout>, in_place: Option<Layout>, names: [&str; 2], col: &str| match (slot, in_place) {
        (Some(_), _) => format!("return {}(at, d, {col});", names[0]),
        (_, Some(_)) => format!("return {}(at, d, {col});", names[1]),
        _ => "return 0.0;".into(),
    };
    let last = |slot: Option<Layout>, in_place: Option<Layout>, names: [&str; 2], col: &str| match (slot, in_place) {
        (Some(_), _) => format!("put_{}(at, d, {col}, x);", names[0]),
        (_, Some(_)) => format!("put_{}(at, d, {col}, x);", names[1]),
        _ => String::new(),
    };
    let v = p.dim_v();
    let mut first_text = String::new();
    let mut last_text = String::new();
    if p.has_z() {
        first_text +=
            &format!("if (e == {v}u) {{ {} }}\n    ", initial(p.initial_z, p.in_place_z, [initial_z, "z_slot"], "0u"));
        last_text +=
            &format!("if (e == {v}u) {{ {} }}\n    ", last(p.last_z, p.in_place_z, ["final_z", "z_slot"], "0u"));
    }
    first_text += &initial(p.initial, p.in_place, [initial_state, "state_slot"], "e");
    last_text += &format!("if (e < {v}u) {{ {} }}", last(p.last, p.in_place, ["final_state", "state_slot"], "e"));
    if !p.causal {
        last_text += "\n    put_total(at, d, e, x);";
    }
    format!(
        "fn first(at: Place, d: u32, e: u32) -> f32 {{\n    {first_text}\n}}\n\
         fn last(at: Place, d: u32, e: u32, x: f32) {{\n    {last_text}\n}}\n"
    )
}
