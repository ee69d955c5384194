// Only those query tiles have work whose rows matrix units could not compute: what was written of them is not finite (attention_coop.wgsl), or
// values of their head were lost. So have those whose first number is rightly infinite or NaN; they come out as they were.
//
// provides  next_wanted
// requires  bindings, out, split (whole_of part_of out_batch), place (q_tile_at), prelude (out_elem), pack (row_at), order (q_token), are_lost

var<workgroup> nearest: atomic<u32>;
var<workgroup> chosen: u32;

// The first of `first`, and every params.teams-th behind it, that has work, or params.workgroups. A thread looks at one of them: a
// workgroup for each would take longer to start than to look.
fn next_wanted(first: u32, t: u32) -> u32 {
    for (var i = first; i < params.workgroups; i += THREADS * params.teams) {
        if (t == 0u) { atomicStore(&nearest, params.workgroups); }
        workgroupBarrier();
        let own = i + t * params.teams;
        if (own < params.workgroups) {
            let at = q_tile_at(whole_of(own), part_of(own));
            if (is_told(at) || are_lost(at)) { atomicMin(&nearest, own); }
        }
        workgroupBarrier();
        if (t == 0u) { chosen = atomicLoad(&nearest); }
        let found = workgroupUniformLoad(&chosen);
        if (found < params.workgroups) { return found; }
    }
    return params.workgroups;
}

// By the first number of the first row there is: all rows of a tile are told of, or none. Its bits decide: WGSL may assume that floats
// are finite.
fn is_told(at: QTile) -> bool {
    for (var r = 0u; r < BLOCK_Q; r++) {
        let token = q_token(at, at.row + r);
        if (token != NO_TOKEN) {
            let own = row_at(at, at.row + r);
            let i = base(params.out, out_batch(own), own.local_h) + (own.first_q + token) * params.out.row;
            // An element is one number, or four.
            let x = f32(vec4<out_elem>(out[i]).x);
            return (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u;
        }
    }
    return false;
}
