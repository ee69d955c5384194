// Runs plans on Dawn, the WebGPU implementation of Chrome, and compares what comes out: run.mjs WEBGPU_PACKAGE FOLDER
// The folder is what `dump_shaders FOLDER --plans` wrote: each NAME.json names the kernels of a plan, their grids and bindings,
// what every buffer holds at the start, and what must come out within which allowance.

import { createRequire } from 'node:module';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const [packageFolder, folder] = process.argv.slice(2);
const { create, globals } = await import(createRequire(import.meta.url).resolve(packageFolder));
Object.assign(globalThis, globals);
// Dawn goes when nothing holds it any more.
const gpu = create([]);
const adapter = await gpu.requestAdapter();
if (!adapter) {
    console.log('skipped: Dawn finds no adapter in this driver');
    process.exit(77);
}
// No feature and no limit is asked for: what WebGPU promises must do.
const device = await adapter.requestDevice();

function bytes(file) {
    const data = readFileSync(join(folder, file));
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

async function run(plan) {
    const buffers = {};
    for (const [name, { size, file }] of Object.entries(plan.buffers)) {
        const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
        buffers[name] = device.createBuffer({ size: Math.ceil(size / 4) * 4, usage });
        if (file) device.queue.writeBuffer(buffers[name], 0, bytes(file));
    }
    const encoder = device.createCommandEncoder();
    for (const { wgsl, grid, bindings } of plan.dispatches) {
        const module = device.createShaderModule({ code: readFileSync(join(folder, wgsl), 'utf8') });
        const layout = device.createBindGroupLayout({
            entries: bindings.map(({ binding, kind }) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: kind } })),
        });
        const pipeline = await device.createComputePipelineAsync({
            layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
            compute: { module, entryPoint: 'main' },
        });
        const entries = bindings.map(({ binding, buffer, offset, size }) => ({ binding, resource: { buffer: buffers[buffer], offset, size } }));
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
        pass.dispatchWorkgroups(...grid);
        pass.end();
    }
    const reads = plan.outputs.map(({ buffer }) => {
        const { size } = buffers[buffer];
        const read = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
        encoder.copyBufferToBuffer(buffers[buffer], 0, read, 0, size);
        return read;
    });
    device.queue.submit([encoder.finish()]);
    const told = [];
    for (const [n, { buffer, file, allowed }] of plan.outputs.entries()) {
        await reads[n].mapAsync(GPUMapMode.READ);
        const got = new Float32Array(reads[n].getMappedRange());
        const data = bytes(file);
        const why = compare(got, new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength)), allowed);
        if (why) told.push(`${buffer}: ${why}`);
    }
    return told;
}

// The first number that is further off than allowed; NaN is, and an infinity but for itself.
function compare(got, want, allowed) {
    if (got.length !== want.length) return `${got.length} numbers came out, but ${want.length} must`;
    for (let i = 0; i < want.length; i++) {
        const near = got[i] === want[i] || Math.abs(got[i] - want[i]) <= allowed;
        if (!near) return `number ${i} is ${got[i]}, but must be ${want[i]} within ${allowed}`;
    }
    return null;
}

for (const wrong of [NaN, 1.5, Infinity]) {
    if (!compare([1, wrong], [1, 2], 0.25)) throw new Error(`the comparison lets ${wrong} pass`);
}

let passed = 0, failed = 0;
for (const name of readdirSync(folder).filter((name) => name.endsWith('.json')).sort()) {
    const plan = JSON.parse(readFileSync(join(folder, name)));
    device.pushErrorScope('validation');
    let told;
    try {
        told = await run(plan);
    } catch (e) {
        told = [e.message];
    }
    const scope = await device.popErrorScope();
    if (scope) told.unshift(scope.message);
    if (told.length === 0) passed++;
    else failed++;
    console.log(`${name.replace('.json', '')}: ${told.length === 0 ? `${plan.dispatches.length} dispatches, ok` : told.join('; ')}`);
}
console.log(`${passed} passed, ${failed} failed`);
// Without this Dawn's threads keep the process.
process.exit(failed === 0 && passed > 0 ? 0 : 1);
