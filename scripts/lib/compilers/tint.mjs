// Compiles every portable shader of a folder with Tint, the WGSL compiler of Dawn and Chrome: tint.mjs WEBGPU_PACKAGE FOLDER
// Dawn makes the pipelines too, on the Vulkan driver that the environment names, which must have what the shaders ask for:
// those that ask for more are counted and left out.

import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const [packageFolder, folder] = process.argv.slice(2);
const { create, globals } = await import(createRequire(import.meta.url).resolve(packageFolder));
Object.assign(globalThis, globals);

// Dawn goes when nothing holds it any more.
const gpu = create([]);

async function open() {
    const adapter = await gpu.requestAdapter();
    if (!adapter) {
        console.log('skipped: Dawn finds no adapter in this driver');
        process.exit(77);
    }
    const wanted = ['shader-f16', 'subgroups'].filter((feature) => adapter.features.has(feature));
    const limits = {};
    for (const name of ['maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX', 'maxComputeWorkgroupStorageSize', 'maxStorageBuffersPerShaderStage']) {
        limits[name] = adapter.limits[name];
    }
    return adapter.requestDevice({ requiredFeatures: wanted, requiredLimits: limits });
}

const device = await open();

// Why the device cannot be asked for this shader, if it cannot.
function leftOut(entry) {
    if (entry.matrices) return 'on matrix units, which WGSL of browsers does not have';
    if (entry.int64) return 'of 64-bit integers, which WGSL of browsers does not have';
    if (entry.f16 && !device.features.has('shader-f16')) return 'of f16, which this driver does not have';
    if (entry.subgroups && !device.features.has('subgroups')) return 'of subgroups, which this driver does not have';
    const { maxComputeWorkgroupStorageSize: bytes, maxComputeInvocationsPerWorkgroup: threads } = device.limits;
    if (entry.workgroup_bytes > bytes) return `of more than ${bytes} bytes of workgroup memory`;
    if (entry.threads > threads) return `of more than ${threads} threads`;
    return null;
}

async function compile(text) {
    device.pushErrorScope('validation');
    device.pushErrorScope('internal');
    const module = device.createShaderModule({ code: text });
    const messages = (await module.getCompilationInfo()).messages;
    const errors = messages.filter((m) => m.type === 'error').map((m) => `${m.lineNum}: ${m.message}`);
    if (errors.length === 0) {
        try {
            await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } });
        } catch (e) {
            errors.push(e.message);
        }
    }
    for (const scope of [await device.popErrorScope(), await device.popErrorScope()]) {
        if (scope && errors.length === 0) errors.push(scope.message);
    }
    return errors.length === 0 ? null : errors.slice(0, 3).join('\n');
}

if (!(await compile('@compute @workgroup_size(1) fn main() { let x = undeclared; }'))) throw new Error('Tint accepts what is no program');

const skipped = new Map();
let passed = 0;
const failures = [];
for (const entry of JSON.parse(readFileSync(join(folder, 'index.json')))) {
    const why = leftOut(entry);
    if (why) {
        skipped.set(why, (skipped.get(why) ?? 0) + 1);
        continue;
    }
    const text = readFileSync(join(folder, `${entry.name}.wgsl`), 'utf8');
    const told = await compile(entry.subgroups ? `enable subgroups;\n${text}` : text);
    if (told) failures.push(`${entry.name}: ${told}`);
    else passed++;
}
for (const told of failures.slice(0, 20)) console.log(told);
for (const [why, count] of skipped) console.log(`${count} left out: ${why}`);
if (passed + failures.length === 0) throw new Error('there was nothing to compile');
console.log(`${passed} passed, ${failures.length} failed`);
// Without this Dawn's threads keep the process.
process.exit(failures.length === 0 ? 0 : 1);
