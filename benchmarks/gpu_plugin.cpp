// A TensorRT 8.6 plug-in layer of our own, for the check plugin_library of gpu_checks.py.
//
// HarnessOverwrite copies its input, float32[n, ...], and writes the attribute `value` into element `column` of every
// one of the n rows. So the outputs of a network show that the layer ran, on its input, with its attributes. It needs
// no kernel: libcuda's copy and two-dimensional fill do.
//
//     g++ -std=c++14 -O1 -shared -fPIC -fno-exceptions -fvisibility=hidden -o libgpu_plugin.so gpu_plugin.cpp -ldl
//
// TensorRT's wheels hold no headers, so the interfaces are declared anew here, as far as this layer needs them. What
// counts is their layout: the order of virtual functions, protected and private ones and destructors included (Itanium
// C++ ABI), and the members of the structures. It follows include/NvInferRuntimePlugin.h, NvInferRuntimeCommon.h and
// NvInferRuntime.h of github.com/NVIDIA/TensorRT, release 8.6. TensorRT 10 has the same functions but 64-bit
// dimensions, so nothing is registered there.

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>

namespace nvinfer1
{
constexpr int32_t kVersion = 8600;  // 8.6.0; what objects say they were compiled for
constexpr int32_t kPluginV2DynamicExt = 3;
constexpr int32_t kMaxDims = 8;

enum class DataType : int32_t { kFLOAT = 0 };
enum class TensorFormat : int32_t { kLINEAR = 0 };
enum class PluginFieldType : int32_t { kFLOAT32 = 1, kINT32 = 5 };

struct Dims
{
    int32_t nbDims;
    int32_t d[kMaxDims];
};

class IDimensionExpr;
class IExprBuilder;
class IGpuAllocator;

struct DimsExprs
{
    int32_t nbDims;
    IDimensionExpr const* d[kMaxDims];
};

struct PluginTensorDesc
{
    Dims dims;
    DataType type;
    TensorFormat format;
    float scale;
};

struct DynamicPluginTensorDesc
{
    PluginTensorDesc desc;
    Dims min;
    Dims max;
};

struct PluginField
{
    char const* name;
    void const* data;
    PluginFieldType type;
    int32_t length;
};

struct PluginFieldCollection
{
    int32_t nbFields;
    PluginField const* fields;
};

static_assert(sizeof(Dims) == 36 && sizeof(DimsExprs) == 72, "layout of 8.6");
static_assert(sizeof(PluginTensorDesc) == 48 && sizeof(DynamicPluginTensorDesc) == 120, "layout of 8.6");
static_assert(sizeof(PluginField) == 24 && sizeof(PluginFieldCollection) == 16, "layout of 8.6");

class IPluginV2
{
public:
    virtual int32_t getTensorRTVersion() const noexcept = 0;
    virtual char const* getPluginType() const noexcept = 0;
    virtual char const* getPluginVersion() const noexcept = 0;
    virtual int32_t getNbOutputs() const noexcept = 0;
    virtual Dims getOutputDimensions(int32_t index, Dims const* inputs, int32_t nbInputs) noexcept = 0;
    virtual bool supportsFormat(DataType type, TensorFormat format) const noexcept = 0;
    virtual void configureWithFormat(Dims const* inputs, int32_t nbInputs, Dims const* outputs, int32_t nbOutputs,
        DataType type, TensorFormat format, int32_t maxBatchSize) noexcept = 0;
    virtual int32_t initialize() noexcept = 0;
    virtual void terminate() noexcept = 0;
    virtual size_t getWorkspaceSize(int32_t maxBatchSize) const noexcept = 0;
    virtual int32_t enqueue(int32_t batchSize, void const* const* inputs, void* const* outputs, void* workspace,
        void* stream) noexcept = 0;
    virtual size_t getSerializationSize() const noexcept = 0;
    virtual void serialize(void* buffer) const noexcept = 0;
    virtual void destroy() noexcept = 0;
    virtual IPluginV2* clone() const noexcept = 0;
    virtual void setPluginNamespace(char const* space) noexcept = 0;
    virtual char const* getPluginNamespace() const noexcept = 0;
    virtual ~IPluginV2() noexcept = default;
};

class IPluginV2Ext : public IPluginV2
{
public:
    virtual DataType getOutputDataType(int32_t index, DataType const* types, int32_t nbInputs) const noexcept = 0;
    virtual bool isOutputBroadcastAcrossBatch(int32_t index, bool const* inputs, int32_t nbInputs) const noexcept = 0;
    virtual bool canBroadcastInputAcrossBatch(int32_t index) const noexcept = 0;
    virtual void configurePlugin(Dims const* inputs, int32_t nbInputs, Dims const* outputs, int32_t nbOutputs,
        DataType const* inputTypes, DataType const* outputTypes, bool const* inputBroadcast,
        bool const* outputBroadcast, TensorFormat format, int32_t maxBatchSize) noexcept = 0;
    virtual void attachToContext(void* cudnn, void* cublas, IGpuAllocator* allocator) noexcept = 0;
    virtual void detachFromContext() noexcept = 0;
};

class IPluginV2DynamicExt : public IPluginV2Ext
{
public:
    virtual DimsExprs getOutputDimensions(
        int32_t index, DimsExprs const* inputs, int32_t nbInputs, IExprBuilder& builder) noexcept = 0;
    virtual bool supportsFormatCombination(
        int32_t pos, PluginTensorDesc const* inOut, int32_t nbInputs, int32_t nbOutputs) noexcept = 0;
    virtual void configurePlugin(DynamicPluginTensorDesc const* in, int32_t nbInputs,
        DynamicPluginTensorDesc const* out, int32_t nbOutputs) noexcept = 0;
    virtual size_t getWorkspaceSize(PluginTensorDesc const* inputs, int32_t nbInputs, PluginTensorDesc const* outputs,
        int32_t nbOutputs) const noexcept = 0;
    virtual int32_t enqueue(PluginTensorDesc const* inputDesc, PluginTensorDesc const* outputDesc,
        void const* const* inputs, void* const* outputs, void* workspace, void* stream) noexcept = 0;

    int32_t getTensorRTVersion() const noexcept override
    {
        return kPluginV2DynamicExt << 24 | kVersion;
    }

private:
    // The functions of the older interfaces, which TensorRT does not call on a layer of this kind.
    Dims getOutputDimensions(int32_t, Dims const*, int32_t) noexcept final
    {
        return Dims{-1, {}};
    }
    bool supportsFormat(DataType, TensorFormat) const noexcept final
    {
        return false;
    }
    void configureWithFormat(
        Dims const*, int32_t, Dims const*, int32_t, DataType, TensorFormat, int32_t) noexcept final
    {
    }
    size_t getWorkspaceSize(int32_t) const noexcept final
    {
        return 0;
    }
    int32_t enqueue(int32_t, void const* const*, void* const*, void*, void*) noexcept final
    {
        return 1;
    }
    bool isOutputBroadcastAcrossBatch(int32_t, bool const*, int32_t) const noexcept final
    {
        return false;
    }
    bool canBroadcastInputAcrossBatch(int32_t) const noexcept final
    {
        return true;
    }
    void configurePlugin(Dims const*, int32_t, Dims const*, int32_t, DataType const*, DataType const*, bool const*,
        bool const*, TensorFormat, int32_t) noexcept final
    {
    }
    void attachToContext(void*, void*, IGpuAllocator*) noexcept final {}
    void detachFromContext() noexcept final {}
};

class IPluginCreator
{
public:
    virtual int32_t getTensorRTVersion() const noexcept = 0;
    virtual char const* getPluginName() const noexcept = 0;
    virtual char const* getPluginVersion() const noexcept = 0;
    virtual PluginFieldCollection const* getFieldNames() noexcept = 0;
    virtual IPluginV2* createPlugin(char const* name, PluginFieldCollection const* fields) noexcept = 0;
    virtual IPluginV2* deserializePlugin(char const* name, void const* data, size_t length) noexcept = 0;
    virtual void setPluginNamespace(char const* space) noexcept = 0;
    virtual char const* getPluginNamespace() const noexcept = 0;
    virtual ~IPluginCreator() = default;
};

class IPluginRegistry
{
public:
    virtual bool registerCreator(IPluginCreator& creator, char const* space) noexcept = 0;  // the first of many
};
} // namespace nvinfer1

namespace
{
using namespace nvinfer1;

constexpr char kName[] = "HarnessOverwrite";
constexpr char kPluginVersion[] = "1";

// cuMemcpyDtoDAsync and cuMemsetD2D32Async of cuda.h, under their names in the library.
using Copy = int (*)(uint64_t to, uint64_t from, size_t bytes, void* stream);
using Fill = int (*)(uint64_t to, size_t pitch, unsigned value, size_t width, size_t height, void* stream);
Copy copyOnDevice = nullptr;
Fill fillOnDevice = nullptr;

bool findDriver() noexcept
{
    if (copyOnDevice == nullptr || fillOnDevice == nullptr)
    {
        void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
        if (driver == nullptr)
        {
            std::fprintf(stderr, "%s: %s\n", kName, dlerror());
            return false;
        }
        copyOnDevice = reinterpret_cast<Copy>(dlsym(driver, "cuMemcpyDtoDAsync_v2"));
        fillOnDevice = reinterpret_cast<Fill>(dlsym(driver, "cuMemsetD2D32Async"));
    }
    return copyOnDevice != nullptr && fillOnDevice != nullptr;
}

class Namespace
{
public:
    void set(char const* space) noexcept
    {
        std::snprintf(mText, sizeof(mText), "%s", space == nullptr ? "" : space);
    }
    char const* get() const noexcept
    {
        return mText;
    }

private:
    char mText[128] = "";
};

struct Attributes
{
    float value;
    int32_t column;
};

class HarnessOverwrite final : public IPluginV2DynamicExt
{
public:
    explicit HarnessOverwrite(Attributes attributes) noexcept
        : mAttributes(attributes)
    {
    }

    char const* getPluginType() const noexcept override
    {
        return kName;
    }
    char const* getPluginVersion() const noexcept override
    {
        return kPluginVersion;
    }
    int32_t getNbOutputs() const noexcept override
    {
        return 1;
    }
    int32_t initialize() noexcept override
    {
        return findDriver() ? 0 : 1;
    }
    void terminate() noexcept override {}
    size_t getSerializationSize() const noexcept override
    {
        return sizeof(mAttributes);
    }
    void serialize(void* buffer) const noexcept override
    {
        std::memcpy(buffer, &mAttributes, sizeof(mAttributes));
    }
    void destroy() noexcept override
    {
        delete this;
    }
    IPluginV2* clone() const noexcept override
    {
        auto* const copy = new (std::nothrow) HarnessOverwrite(mAttributes);
        if (copy != nullptr)
        {
            copy->mNamespace = mNamespace;
        }
        return copy;
    }
    void setPluginNamespace(char const* space) noexcept override
    {
        mNamespace.set(space);
    }
    char const* getPluginNamespace() const noexcept override
    {
        return mNamespace.get();
    }
    DataType getOutputDataType(int32_t, DataType const* types, int32_t) const noexcept override
    {
        return types[0];
    }
    DimsExprs getOutputDimensions(int32_t, DimsExprs const* inputs, int32_t, IExprBuilder&) noexcept override
    {
        return inputs[0];
    }
    bool supportsFormatCombination(int32_t pos, PluginTensorDesc const* inOut, int32_t, int32_t) noexcept override
    {
        return inOut[pos].type == DataType::kFLOAT && inOut[pos].format == TensorFormat::kLINEAR;
    }
    void configurePlugin(
        DynamicPluginTensorDesc const*, int32_t, DynamicPluginTensorDesc const*, int32_t) noexcept override
    {
    }
    size_t getWorkspaceSize(
        PluginTensorDesc const*, int32_t, PluginTensorDesc const*, int32_t) const noexcept override
    {
        return 0;
    }
    int32_t enqueue(PluginTensorDesc const* inputDesc, PluginTensorDesc const*, void const* const* inputs,
        void* const* outputs, void*, void* stream) noexcept override
    {
        Dims const& dims = inputDesc[0].dims;
        size_t rowBytes = sizeof(float);
        for (int32_t k = 1; k < dims.nbDims; ++k)
        {
            rowBytes *= static_cast<size_t>(dims.d[k]);
        }
        size_t const offset = static_cast<size_t>(mAttributes.column) * sizeof(float);
        if (dims.nbDims < 1 || offset >= rowBytes || copyOnDevice == nullptr || fillOnDevice == nullptr)
        {
            return 1;
        }
        auto const rows = static_cast<size_t>(dims.d[0]);
        auto const to = reinterpret_cast<uint64_t>(outputs[0]);
        unsigned bits;
        std::memcpy(&bits, &mAttributes.value, sizeof(bits));
        int const copied = copyOnDevice(to, reinterpret_cast<uint64_t>(inputs[0]), rows * rowBytes, stream);
        return copied != 0 ? copied : fillOnDevice(to + offset, rowBytes, bits, 1, rows, stream);
    }

private:
    Attributes mAttributes;
    Namespace mNamespace;
};

class HarnessOverwriteCreator final : public IPluginCreator
{
public:
    int32_t getTensorRTVersion() const noexcept override
    {
        return kVersion;
    }
    char const* getPluginName() const noexcept override
    {
        return kName;
    }
    char const* getPluginVersion() const noexcept override
    {
        return kPluginVersion;
    }
    PluginFieldCollection const* getFieldNames() noexcept override
    {
        static constexpr PluginField kFields[] = {
            {"value", nullptr, PluginFieldType::kFLOAT32, 1}, {"column", nullptr, PluginFieldType::kINT32, 1}};
        static constexpr PluginFieldCollection kCollection = {2, kFields};
        return &kCollection;
    }
    IPluginV2* createPlugin(char const*, PluginFieldCollection const* fields) noexcept override
    {
        Attributes found{0.0F, -1};
        bool hasValue = false;
        for (int32_t k = 0; k < fields->nbFields; ++k)
        {
            PluginField const& field = fields->fields[k];
            if (field.length != 1 || field.data == nullptr)
            {
                continue;
            }
            if (std::strcmp(field.name, "value") == 0 && field.type == PluginFieldType::kFLOAT32)
            {
                std::memcpy(&found.value, field.data, sizeof(found.value));
                hasValue = true;
            }
            else if (std::strcmp(field.name, "column") == 0 && field.type == PluginFieldType::kINT32)
            {
                std::memcpy(&found.column, field.data, sizeof(found.column));
            }
        }
        if (!hasValue || found.column < 0)
        {
            std::fprintf(stderr, "%s needs the attributes value (float) and column (int, 0 or more)\n", kName);
            return nullptr;
        }
        return make(found);
    }
    IPluginV2* deserializePlugin(char const*, void const* data, size_t length) noexcept override
    {
        Attributes found;
        if (length != sizeof(found))
        {
            return nullptr;
        }
        std::memcpy(&found, data, sizeof(found));
        return make(found);
    }
    void setPluginNamespace(char const* space) noexcept override
    {
        mNamespace.set(space);
    }
    char const* getPluginNamespace() const noexcept override
    {
        return mNamespace.get();
    }

private:
    IPluginV2* make(Attributes attributes) const noexcept
    {
        auto* const layer = new (std::nothrow) HarnessOverwrite(attributes);
        if (layer != nullptr)
        {
            layer->setPluginNamespace(mNamespace.get());
        }
        return layer;
    }

    Namespace mNamespace;
};

__attribute__((constructor)) void registerLayer() noexcept
{
    // Never freed: the registry points to it until the process has ended, which is after this library's destructors.
    auto* const creator = new (std::nothrow) HarnessOverwriteCreator;
    void* const library = dlopen("libnvinfer.so.8", RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr || creator == nullptr)
    {
        std::fprintf(stderr, "%s: TensorRT 8 (libnvinfer.so.8) is not loaded; nothing is registered\n", kName);
        return;
    }
    auto const registry = reinterpret_cast<IPluginRegistry* (*) ()>(dlsym(library, "getPluginRegistry"));
    if (registry == nullptr || registry() == nullptr || !registry()->registerCreator(*creator, ""))
    {
        std::fprintf(stderr, "%s: TensorRT's registry took no layer\n", kName);
    }
}
} // namespace
