// Eight f16 as two vectors.
//
// provides  Half8 lower upper is_strange OWN_COLUMN
// requires  are_strange

// 0: a column is not what views count.
const OWN_COLUMN: u32 = 0u;

struct Half8 { lo: vec4<f16>, hi: vec4<f16> }

fn lower(x: Half8) -> vec4<f16> {
    return x.lo;
}

fn upper(x: Half8) -> vec4<f16> {
    return x.hi;
}

// Whether any of them is infinite or NaN.
fn is_strange(x: Half8) -> bool {
    return any(are_strange(x.lo) | are_strange(x.hi));
}
