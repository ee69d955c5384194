//! Puts functions without branches into their callers, for compilers that take long over calls.
//!
//! Drivers put every function of a shader in its place anyway; NVIDIA's takes a third longer for it than for the same text without calls
//! (`Spec::inlines`). naga writes each function, each `{ }` and each constant condition as blocks of their own. So branches that a
//! constant decides are taken, blocks that only follow one another become one, and functions that are then a single block go where
//! they are called, callees first.
//!
//! Ids are renamed by a table of what operands are (`layout`); a function with an instruction that is not in it stays a function.

use std::collections::{HashMap, HashSet};

use super::spirv_module::{Block, Function, Instruction, Module, layout, op};

/// Puts every function of one block into its callers.
pub(super) fn small_functions(module: &mut Module) {
    let truths = module.truths();
    for function in &mut module.functions {
        function.take_constant_branches(&truths);
        function.join_blocks();
    }
    module.inline();
    module.forget_uncalled();
}

/// Where functions are put: what new ids begin with, variables of the caller that they bring along, and what ids of theirs became.
struct Place {
    bound: u32,
    variables: Vec<Instruction>,
    renames: Renames,
}

impl Place {
    fn id(&mut self) -> u32 {
        self.bound += 1;
        self.bound - 1
    }
}

/// New ids by old ones, 0 for those that keep their own: a list, since a map takes three times as long.
#[derive(Default)]
struct Renames {
    new: Vec<u32>,
    set: Vec<u32>,
}

impl Renames {
    fn set(&mut self, old: u32, new: u32) {
        self.new.resize(self.new.len().max(old as usize + 1), 0);
        self.new[old as usize] = new;
        self.set.push(old);
    }

    fn get(&self, id: u32) -> u32 {
        self.new.get(id as usize).copied().filter(|new| *new != 0).unwrap_or(id)
    }

    fn clear(&mut self) {
        self.set.drain(..).for_each(|id| self.new[id as usize] = 0);
    }
}

impl Module {
    fn truths(&self) -> HashMap<u32, bool> {
        let truth = |i: &Instruction| match i.opcode {
            op::CONSTANT_TRUE => Some((i.operands[1], true)),
            op::CONSTANT_FALSE => Some((i.operands[1], false)),
            _ => None,
        };
        self.globals.iter().filter_map(truth).collect()
    }

    fn inline(&mut self) {
        // naga writes a function before those that call it, so that callees hold nothing to inline any more.
        let mut small: HashMap<u32, usize> = HashMap::new();
        let mut place = Place { bound: self.bound, variables: Vec::new(), renames: Renames::default() };
        for n in 0..self.functions.len() {
            let (before, rest) = self.functions.split_at_mut(n);
            rest[0].inline(|id| small.get(&id).map(|&at| &before[at]), &mut place);
            if rest[0].is_small() {
                small.insert(rest[0].id(), n);
            }
        }
        self.bound = place.bound;
    }

    /// Leaves out functions that nothing calls, and names and decorations of what was in them.
    fn forget_uncalled(&mut self) {
        let entries = self.globals.iter().filter(|i| i.opcode == op::ENTRY_POINT).map(|i| i.operands[1]);
        let called = self.functions.iter().flat_map(Function::instructions).filter(|i| i.opcode == op::FUNCTION_CALL);
        let kept: HashSet<u32> = entries.chain(called.map(|i| i.operands[2])).collect();
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.functions).into_iter().partition(|function| kept.contains(&function.id()));
        self.functions = kept;
        let forgotten: HashSet<u32> = gone.iter().flat_map(Function::ids).collect();
        // What was inlined keeps its names nowhere: ids in callers are new ones.
        let names = [op::NAME, op::DECORATE];
        self.globals.retain(|i| !names.contains(&i.opcode) || !forgotten.contains(&i.operands[0]));
    }
}

impl Function {
    fn is_small(&self) -> bool {
        let [block] = &self.blocks[..] else { return false };
        block.body.iter().all(|i| layout(i).is_some())
    }

    /// The id that a function of one block returns.
    fn returned(&self) -> Option<u32> {
        self.blocks[0].body.last().filter(|i| i.opcode == op::RETURN_VALUE).map(|i| i.operands[0])
    }

    fn take_constant_branches(&mut self, truths: &HashMap<u32, bool>) {
        // Values that depend on where control came from would name blocks that are gone; naga writes none.
        if self.instructions().any(|i| i.opcode == op::PHI) {
            return;
        }
        for block in &mut self.blocks {
            let [.., merge, branch] = &block.body[..] else { continue };
            if [merge.opcode, branch.opcode] != [op::SELECTION_MERGE, op::BRANCH_CONDITIONAL] {
                continue;
            }
            let Some(&taken) = truths.get(&branch.operands[0]) else { continue };
            let to = branch.operands[if taken { 1 } else { 2 }];
            block.body.truncate(block.body.len() - 2);
            block.body.push(Instruction { opcode: op::BRANCH, operands: vec![to] });
        }
        // Blocks that are reached, or that a construct which is reached names.
        let at: HashMap<u32, usize> = self.blocks.iter().enumerate().map(|(n, block)| (block.label, n)).collect();
        let (mut reached, mut open) = (HashSet::new(), vec![self.blocks[0].label]);
        while let Some(label) = open.pop() {
            if reached.insert(label) {
                open.extend(self.blocks[at[&label]].body.iter().flat_map(Instruction::labels));
            }
        }
        self.blocks.retain(|block| reached.contains(&block.label));
    }

    fn join_blocks(&mut self) {
        let (mut arrivals, mut named) = (HashMap::new(), HashSet::new());
        for i in self.instructions() {
            match i.opcode {
                op::LOOP_MERGE | op::SELECTION_MERGE => named.extend(i.labels()),
                _ => i.labels().into_iter().for_each(|label| *arrivals.entry(label).or_insert(0) += 1),
            }
        }
        let mut order: Vec<u32> = self.blocks.iter().map(|block| block.label).collect();
        let mut bodies: HashMap<u32, Vec<Instruction>> =
            self.blocks.drain(..).map(|block| (block.label, block.body)).collect();
        let mut joined = HashMap::new();
        for &label in &order {
            let Some(mut body) = bodies.remove(&label) else { continue };
            while let Some(next) = goes_on_to(&body) {
                let follows = arrivals[&next] == 1 && !named.contains(&next) && bodies[&next][0].opcode != op::PHI;
                let Some(more) = follows.then(|| bodies.remove(&next)).flatten() else { break };
                body.pop();
                body.extend(more);
                joined.insert(next, label);
            }
            bodies.insert(label, body);
        }
        order.retain(|label| !joined.contains_key(label));
        self.blocks =
            order.into_iter().map(|label| Block { label, body: bodies.remove(&label).expect("it stays") }).collect();
        self.rename_origins(&joined);
    }

    /// Values that depend on where control came from name blocks.
    fn rename_origins(&mut self, joined: &HashMap<u32, u32>) {
        for i in self.blocks.iter_mut().flat_map(|block| &mut block.body).filter(|i| i.opcode == op::PHI) {
            for origin in i.operands[2..].iter_mut().skip(1).step_by(2) {
                while let Some(&into) = joined.get(origin) {
                    *origin = into;
                }
            }
        }
    }

    fn inline<'a>(&mut self, small: impl Fn(u32) -> Option<&'a Function>, place: &mut Place) {
        for block in &mut self.blocks {
            let mut body = Vec::with_capacity(block.body.len());
            for i in block.body.drain(..) {
                match (i.opcode == op::FUNCTION_CALL).then(|| small(i.operands[2])).flatten() {
                    Some(callee) => callee.put_in_place(&i, &mut body, place),
                    None => body.push(i),
                }
            }
            block.body = body;
        }
        // Variables of a function stand first in it.
        self.blocks[0].body.splice(0..0, place.variables.drain(..));
    }

    /// Writes this function's body where `call` stood.
    fn put_in_place(&self, call: &Instruction, body: &mut Vec<Instruction>, place: &mut Place) {
        let arguments = call.operands[3..].iter().copied();
        let parameters = self.head[1..].iter().map(|parameter| parameter.operands[1]);
        parameters.zip(arguments).for_each(|(parameter, argument)| place.renames.set(parameter, argument));
        for i in &self.blocks[0].body {
            let (result, ids) = layout(i).expect("is_small");
            let mut operands = i.operands.clone();
            operands[ids].iter_mut().for_each(|id| *id = place.renames.get(*id));
            if result {
                // What is returned takes the call's name.
                let new = if Some(operands[1]) == self.returned() { call.operands[1] } else { place.id() };
                place.renames.set(operands[1], new);
                operands[1] = new;
            }
            match i.opcode {
                op::RETURN => {}
                op::RETURN_VALUE if operands[0] == call.operands[1] => {}
                op::RETURN_VALUE => {
                    let copied = vec![call.operands[0], call.operands[1], operands[0]];
                    body.push(Instruction { opcode: op::COPY_OBJECT, operands: copied });
                }
                op::VARIABLE => {
                    // At each call it begins anew.
                    if let Some(initial) = operands.get(3) {
                        body.push(Instruction { opcode: op::STORE, operands: vec![operands[1], *initial] });
                    }
                    operands.truncate(3);
                    place.variables.push(Instruction { opcode: op::VARIABLE, operands });
                }
                opcode => body.push(Instruction { opcode, operands }),
            }
        }
        place.renames.clear();
    }
}

/// The only block that may come next, unless a loop begins there.
fn goes_on_to(body: &[Instruction]) -> Option<u32> {
    let (last, before) = body.split_last()?;
    let begins = before.last().is_some_and(|i| i.opcode == op::LOOP_MERGE);
    (last.opcode == op::BRANCH && !begins).then(|| last.operands[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::grid::on_matrix_units;
    use crate::gpu::link::reflect_bindings;
    use crate::gpu::spirv;

    fn plain(spec: &crate::gpu::spec::Spec) -> Option<Module> {
        let (elements, module) = (spec.elements()?, spec.link().unwrap().module);
        let (bindings, checks) = (reflect_bindings(&module), wgpu::ShaderRuntimeChecks::unchecked());
        let words = spirv::write(&module, &bindings, Some(elements), |name| spec.pins(name), false, checks).unwrap();
        Some(Module::read(&words).unwrap())
    }

    /// How often an instruction stands in the entry point once every function is in its place.
    fn in_place(module: &Module, counts_it: impl Fn(&Instruction) -> bool) -> usize {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for function in &module.functions {
            let own = function.instructions().filter(|i| counts_it(i)).count();
            let calls = function.instructions().filter(|i| i.opcode == op::FUNCTION_CALL);
            counts.insert(function.id(), own + calls.map(|i| counts[&i.operands[2]]).sum::<usize>());
        }
        counts[&module.functions.last().expect("an entry point").id()]
    }

    /// Ids are defined once, and those that are used are defined.
    fn check_ids(module: &Module) {
        let global = |i: &Instruction| match i.opcode {
            // Types, whose result comes first.
            11 | 19..=39 | 4456 => Some(i.operands[0]),
            1 | 41..=59 => Some(i.operands[1]),
            _ => None,
        };
        let all = module.globals.iter().filter_map(global).chain(module.functions.iter().flat_map(Function::ids));
        let mut defined = HashSet::new();
        for id in all {
            assert!(id < module.bound && defined.insert(id), "{id} is defined twice, or beyond {}", module.bound);
        }
        for i in module.functions.iter().flat_map(Function::instructions) {
            let used = layout(i).map_or_else(|| i.labels(), |(_, ids)| i.operands[ids].to_vec());
            for id in used {
                assert!(defined.contains(&id), "{id} is used by {} {:?}, and not defined", i.opcode, i.operands);
            }
        }
        for i in module.globals.iter().filter(|i| i.opcode == op::NAME) {
            assert!(defined.contains(&i.operands[0]), "{} has a name, and is not defined", i.operands[0]);
        }
    }

    #[test]
    fn shaders_with_functions_in_place_do_the_same() {
        for spec in on_matrix_units() {
            let Some([mut before, mut after]) = plain(&spec).zip(plain(&spec)).map(<[Module; 2]>::from) else {
                continue;
            };
            small_functions(&mut after);
            check_ids(&before);
            check_ids(&after);
            // What no branch leads to is not missed.
            let truths = before.truths();
            before.functions.iter_mut().for_each(|function| function.take_constant_branches(&truths));
            for opcode in [op::MATRIX_MULTIPLY_ADD, op::CONTROL_BARRIER, op::ATOMIC_STORE, op::BITCAST] {
                let [was, is] = [&before, &after].map(|module| in_place(module, |i| i.opcode == opcode));
                assert_eq!(was, is, "{opcode} of {spec}");
            }
            // What a variable begins with is stored at each call instead.
            let writes = |i: &Instruction| i.opcode == op::STORE || (i.opcode == op::VARIABLE && i.operands.len() > 3);
            assert_eq!(in_place(&before, writes), in_place(&after, writes), "{spec}");
            let small: HashSet<u32> = after.functions.iter().filter(|f| f.is_small()).map(Function::id).collect();
            let calls =
                after.functions.iter().flat_map(Function::instructions).filter(|i| i.opcode == op::FUNCTION_CALL);
            assert_eq!(calls.filter(|i| small.contains(&i.operands[2])).count(), 0, "{spec}");
            assert!(3 * after.functions.len() <= before.functions.len(), "{spec}: {}", after.functions.len());
        }
    }
}
