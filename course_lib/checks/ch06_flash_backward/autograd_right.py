"""FlashAttention in other styles: each must pass."""

RIGHT = (
    """\
class FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        from course_lib import earlier
        q, k, v, scale, causal = (*inputs, *(None, False)[len(inputs) - 3:])
        out, lse = earlier.flash_forward_lse(q, k, v, scale=scale, causal=causal)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.how = {"scale": scale, "causal": causal}
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dout):
        from course_lib import earlier
        *qkv, out, lse = ctx.saved_tensors
        delta = earlier.attention_delta(out, dout)
        dk, dv = earlier.flash_backward_dkdv(*qkv, dout, lse, delta, **ctx.how)
        return earlier.flash_backward_dq(*qkv, dout, lse, delta, **ctx.how), dk, dv, None, None
""",
    """\
class FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(q, k, v, scale=None, causal=False):
        from course_lib.earlier import flash_forward_lse
        return flash_forward_lse(q, k, v, scale, causal)

    @staticmethod
    def setup_context(ctx, inputs, output):
        q, k, v, ctx.scale, ctx.causal = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(q, k, v, *output)

    @staticmethod
    def backward(ctx, dout, _):
        from course_lib.earlier import attention_delta, flash_backward_dkdv, flash_backward_dq
        q, k, v, out, lse = ctx.saved_tensors
        delta = attention_delta(out, dout)
        dk, dv = flash_backward_dkdv(q, k, v, dout, lse, delta, ctx.scale, ctx.causal)
        return flash_backward_dq(q, k, v, dout, lse, delta, ctx.scale, ctx.causal), dk, dv, None, None

    @classmethod
    def apply(cls, *args):
        return super().apply(*args)[0]
""",
    """\
class FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, scale=None, causal=False):
        from course_lib.earlier import flash_forward_lse
        ctx.causal = causal
        ctx.scale = q.shape[-1] ** -0.5 if scale is None else scale
        out, ctx.lse = flash_forward_lse(q, k, v, ctx.scale, causal)  # neither an input nor an output: an attribute may hold it
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx, dout):
        from course_lib.earlier import flash_backward_dkdv, flash_backward_dq
        q, k, v, out = ctx.saved_tensors
        delta = (dout * out).sum(-1)  # torch may do this
        dq = dk = dv = None
        if ctx.needs_input_grad[0]:
            dq = flash_backward_dq(q, k, v, dout, ctx.lse, delta, ctx.scale, ctx.causal)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            dk, dv = flash_backward_dkdv(q, k, v, dout, ctx.lse, delta, ctx.scale, ctx.causal)
        return dq, dk, dv, None, None
""",
)
