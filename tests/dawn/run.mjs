// Runs plans on Dawn, the WebGPU implementation of Chrome, and compares what comes out: run.mjs WEBGPU_PACKAGE FOLDER
// The folder is what `dump_shaders FOLDER --plans` and `conformance --plans FOLDER` wrote: each NAME.json names kernels, their grids
// and bindings, what every buffer holds at the start, and what must come out within which allowance.

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

// Kernels by the name of their file and the kinds of what they bind, each compiled once.
const kernels = new Map();

function kernel(wgsl, bindings) {
    const key = [wgsl, ...bindings.map(({ binding, kind }) => `${binding} ${kind}`)].join();
    if (!kernels.has(key)) {
        const layout = device.createBindGroupLayout({
            entries: bindings.map(({ binding, kind }) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: kind } })),
        });
        const pipeline = device.createComputePipelineAsync({
            layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
            compute: { module: device.createShaderModule({ code: readFileSync(join(folder, wgsl), 'utf8') }), entryPoint: 'main' },
        });
        kernels.set(key, { layout, pipeline });
    }
    return kernels.get(key);
}

async function run(plan) {
    const buffers = plan.buffers.map(({ size, file }) => {
        const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
        const buffer = device.createBuffer({ size: Math.ceil(size / 4) * 4, usage });
        if (file) device.queue.writeBuffer(buffer, 0, bytes(file));
        return buffer;
    });
    const encoder = device.createCommandEncoder();
    for (const { wgsl, grid, bindings } of plan.dispatches) {
        const { layout, pipeline } = kernel(wgsl, bindings);
        const entries = bindings.map(({ binding, buffer, offset, size }) => ({ binding, resource: { buffer: buffers[buffer], offset, size } }));
        const pass = encoder.beginComputePass();
        pass.setPipeline(await pipeline);
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
    for (const [n, { name, offset, file, rtol, atol }] of plan.outputs.entries()) {
        await reads[n].mapAsync(GPUMapMode.READ);
        const data = bytes(file);
        const want = new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
        const got = new Float32Array(reads[n].getMappedRange()).subarray(offset, offset + want.length);
        const why = compare(got, want, rtol, atol);
        if (why) told.push(`${name}: ${why}`);
        reads[n].destroy();
    }
    buffers.forEach((buffer) => buffer.destroy());
    return told;
}

// The first number that is further off than allowed; NaN is, and an infinity but for itself.
function compare(got, want, rtol, atol) {
    if (got.length !== want.length) return `${got.length} numbers came out, but ${want.length} must`;
    for (let i = 0; i < want.length; i++) {
        const allowed = Number.isFinite(want[i]) ? atol + rtol * Math.abs(want[i]) : 0;
        if (got[i] === want[i] || Math.abs(got[i] - want[i]) <= allowed) continue;
        return `number ${i} is ${got[i]}, but must be ${want[i]} within ${allowed}`;
    }
    return null;
}

for (const wrong of [NaN, 1.5, Infinity, -Infinity]) {
    if (!compare([1, wrong], [1, 2], 0.1, 0.05)) throw new Error(`the comparison lets ${wrong} pass`);
}
if (!compare([1], [Infinity], 1, 1) || compare([1.9, Infinity], [2, Infinity], 0.1, 0)) throw new Error('the comparison is wrong');

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
