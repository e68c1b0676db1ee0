import os, sys, time
sys.path.insert(0, os.getcwd()); os.environ['COURSE_EXTRA']=os.path.abspath('tests/mini_course')
import torch, triton; print(sys.version, torch.__version__, triton.__version__)
from course_lib.grading import catalogue, contain
from course_lib.grading.client import Judge
print(contain.containment())
j=Judge()
ex=catalogue.find('double_and_mask'); c=catalogue.checks(90)['double_and_mask']; sol=catalogue.solution_text(ex)
def show(label, text, name='double_and_mask'):
    t=time.time(); v=j.check(name, text, 7); print(label, '->', v.status, v.tier, round(v.seconds,2), round(time.time()-t,2), v.diagnosis, [(c.name,c.status,round(c.seconds,2)) for c in v.cases], {k:v.details.get(k) for k in ('traceback',) })
show('solution', sol); show('solution warm', sol)
show('tile of 12', sol.replace('BLOCK = 16','BLOCK = 12'))
show('torch in jit', sol.replace('x * 2.0','torch.mul(x, 2.0)' ))
show('python list', sol.replace('    inside = offsets < N','    import numpy\n    inside = offsets < N'))
for m in c.mutants: show(m.id, ex.preamble+'\n\n'+m.text(ex.solution))
show('torch', 'import torch\ndef row_shares(x): return torch.nan_to_num(x.abs() / x.abs().sum(-1, True))', 'row_shares')
show('safe', catalogue.solution_text(catalogue.find('tiled_attention')), 'tiled_attention')
j.close(); time.sleep(1); os.system('ps aux | grep course_li[b]; ls -d /tmp/course-*')
