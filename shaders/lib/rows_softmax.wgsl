// Online softmax (Milakov and Gimelshein 2018; FlashAttention): with m the largest score so far and l the sum of
// exp(x - m), a new tile moves m to m', scales l and the accumulator by alpha = exp(m - m'), and adds its own weights.
//
// provides  Rows RowsResult rows_init rows_update rows_finish
// requires  reduction (lanes_max lanes_sum), sink, pack (row_at), params
//
// m is the same in all lanes of a row; l is each lane's own share until rows_finish.

struct Rows { m: array<f32, ROWS>, l: array<f32, ROWS> }

struct RowsResult { norm: array<f32, ROWS>, lse: array<f32, ROWS> }

fn rows_init() -> Rows {
    var rows = Rows();
    for (var r = 0u; r < ROWS; r++) { // unroll
        rows.m[r] = NEG_INF;
    }
    return rows;
}

// Turns scores into weights in place; returns the factor that rescales each row's accumulator.
fn rows_update(rows: ptr<function, Rows>, s: ptr<function, array<vec4<f32>, SCORES>>, t: u32) -> array<f32, ROWS> {
    var top = array<f32, ROWS>();
    for (var r = 0u; r < ROWS; r++) { // unroll
        var x = vec4<f32>(NEG_INF);
        for (var c = 0u; c < KEYS4; c++) { // unroll
            x = max(x, (*s)[r * KEYS4 + c]);
        }
        top[r] = max(max(x.x, x.y), max(x.z, x.w));
    }
    lanes_max(&top, t);
    var alpha = array<f32, ROWS>();
    for (var r = 0u; r < ROWS; r++) { // unroll
        let m = max((*rows).m[r], top[r]);
        alpha[r] = exp((*rows).m[r] - m);
        var sum = vec4<f32>();
        for (var c = 0u; c < KEYS4; c++) { // unroll
            let x = (*s)[r * KEYS4 + c];
            // Where m is still NEG_INF, exp(x - m) would be 1 for a masked key.
            let p = select(exp(x - vec4<f32>(m)), vec4<f32>(), x <= vec4<f32>(NEG_INF));
            (*s)[r * KEYS4 + c] = p;
            sum += p;
        }
        (*rows).l[r] = (*rows).l[r] * alpha[r] + (sum.x + sum.y + sum.z + sum.w);
        (*rows).m[r] = m;
    }
    return alpha;
}

// A sink adds exp(sink) to the denominator and no value; of several parts, the first counts it. A row without any weight gives 0 and lse -inf.
fn rows_finish(rows: Rows, at: QTile, row0: u32, t: u32) -> RowsResult {
    var l = rows.l;
    lanes_sum(&l, t);
    var result = RowsResult();
    for (var r = 0u; r < ROWS; r++) { // unroll
        let sunk = select(NEG_INF, sink(row_at(at, at.row + row0 + r).h), at.part == 0u);
        let m = max(rows.m[r], sunk);
        let rescale = exp(rows.m[r] - m);
        let total = l[r] * rescale + select(exp(sunk - m), 0.0, sunk <= NEG_INF);
        let empty = total == 0.0;
        result.norm[r] = select(rescale / total, 0.0, empty);
        result.lse[r] = select(m + log(total), params.empty_lse, empty);
    }
    return result;
}
