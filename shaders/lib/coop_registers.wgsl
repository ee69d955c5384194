// What a thread holds of a block, in its registers: of each of SLOTS rows PER_SLOT numbers. Number e of lanes_of, with
// slot = e / PER_SLOT and i = e % PER_SLOT, lies in
//   row     slot * (SIZE / SLOTS) + member / LANES
//   column  i / RUN * (RUN * LANES) + member % LANES * RUN + i % RUN
// in blocks of weights and of sums alike. The plan takes this file only where coop_probe.wgsl has seen it to be so.
//
// provides  scores_of weights_of move_rows, row_of key_of column_of
// requires  bindings, lib/coop_lanes.wgsl, row state (rows_grow rows_move)

// Slot r of a thread is one row; LANES threads share it.
fn row_of(t: u32, r: u32) -> u32 {
    let block = t / SUBGROUP * ROW_BLOCKS + r / SLOTS;
    return block * SIZE + r % SLOTS * (SIZE / SLOTS) + t % SUBGROUP / LANES;
}

fn column_of(t: u32, i: u32) -> u32 {
    return i / RUN * (RUN * LANES) + t % LANES * RUN + i % RUN;
}

fn key_of(t: u32, c: u32, j: u32) -> u32 {
    let n = c * 4u + j;
    return n / PER_SLOT * SIZE + column_of(t, n % PER_SLOT);
}

fn scores_of(s: ptr<function, array<block_c, S_BLOCKS>>, t: u32) -> array<vec4<f32>, SCORES> {
    var out_scores = array<vec4<f32>, SCORES>();
    for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
        for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
            put_scores(&out_scores, (*s)[b * KEY_BLOCKS + c], b, c);
        }
    }
    return out_scores;
}

fn put_scores(out_scores: ptr<function, array<vec4<f32>, SCORES>>, s: block_c, b: u32, c: u32) {
    let x = lanes_of(s);
    for (var slot = 0u; slot < SLOTS; slot++) { // unroll
        for (var i = 0u; i < PER_SLOT; i++) { // unroll
            let n = c * PER_SLOT + i;
            (*out_scores)[(b * SLOTS + slot) * KEYS4 + n / 4u][n % 4u] = x[slot * PER_SLOT + i];
        }
    }
}

fn weights_of(p: ptr<function, array<vec4<f32>, SCORES>>, t: u32) -> array<block_a, S_BLOCKS> {
    // Rounded by fours: one by one costs compilers more instructions.
    var rounded = array<vec4<f16>, SCORES>();
    for (var n = 0u; n < SCORES; n++) { // unroll
        rounded[n] = vec4<f16>((*p)[n]);
    }
    var blocks = array<block_a, S_BLOCKS>();
    for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
        for (var c = 0u; c < KEY_BLOCKS; c++) { // unroll
            blocks[b * KEY_BLOCKS + c] = weights_block(&rounded, b, c);
        }
    }
    return blocks;
}

fn weights_block(rounded: ptr<function, array<vec4<f16>, SCORES>>, b: u32, c: u32) -> block_a {
    var x = array<f16, ELEMENTS>();
    for (var slot = 0u; slot < SLOTS; slot++) { // unroll
        for (var i = 0u; i < PER_SLOT; i++) { // unroll
            let n = c * PER_SLOT + i;
            x[slot * PER_SLOT + i] = (*rounded)[(b * SLOTS + slot) * KEYS4 + n / 4u][n % 4u];
        }
    }
    return weights_block_of(x);
}

// One vote tells whether any row's reference moves; only then is it worth finding by how much.
fn move_rows(
    rows: ptr<function, Rows>,
    acc: ptr<function, array<block_c, ACC_BLOCKS>>,
    s: ptr<function, array<vec4<f32>, SCORES>>,
    t: u32,
) {
    if (!subgroupAny(rows_grow(rows, s))) { return; }
    var alpha = rows_move(rows, s, t);
    for (var b = 0u; b < ROW_BLOCKS; b++) { // unroll
        for (var d = 0u; d < V_BLOCKS; d++) { // unroll
            (*acc)[b * V_BLOCKS + d] = rescaled((*acc)[b * V_BLOCKS + d], &alpha, b);
        }
    }
}

fn rescaled(sums: block_c, alpha: ptr<function, array<f32, ROWS>>, b: u32) -> block_c {
    var x = lanes_of(sums);
    for (var e = 0u; e < ELEMENTS; e++) { // unroll
        x[e] *= (*alpha)[b * SLOTS + e / PER_SLOT];
    }
    return sums_block_of(x);
}
