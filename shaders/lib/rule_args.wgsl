// Numbers of the mask and score rules, eight a rule, so that a rule's text does not depend on them.
//
// provides  rule_args

@group(0) @binding(11) var<uniform> rule_args: array<vec4<u32>, MAX_RULE_ARGS>;
