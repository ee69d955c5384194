//! How many multiprocessors a device has, where a Vulkan extension tells.

/// NVIDIA's drivers have `VK_NV_shader_sm_builtins`; others have nothing of the kind that tells how much runs at once.
#[cfg(any(target_os = "linux", target_os = "android", windows))]
pub(crate) fn of(device: &wgpu::Device) -> Option<u32> {
    use ash::vk;

    // SAFETY: the handles are looked at while the guard lives, and nothing is made or destroyed with them.
    let hal = unsafe { device.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (physical, instance) = (hal.raw_physical_device(), hal.shared_instance().raw_instance());
    // SAFETY: the physical device is one of the instance's.
    let (extensions, properties) = unsafe {
        let extensions = instance.enumerate_device_extension_properties(physical).ok()?;
        (extensions, instance.get_physical_device_properties(physical))
    };
    let told = |e: &vk::ExtensionProperties| e.extension_name_as_c_str() == Ok(vk::NV_SHADER_SM_BUILTINS_NAME);
    if !extensions.iter().any(told) || properties.api_version < vk::API_VERSION_1_1 {
        return None;
    }
    let mut multiprocessors = vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV::default();
    let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut multiprocessors);
    // SAFETY: Vulkan 1.1 has the function, and the extension fills what is chained to its answer.
    unsafe { instance.get_physical_device_properties2(physical, &mut all) };
    Some(multiprocessors.shader_sm_count).filter(|&n| n > 0)
}

#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
pub(crate) fn of(_: &wgpu::Device) -> Option<u32> {
    None
}
