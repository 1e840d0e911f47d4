"""research: stream demonstrations from processes, learn on the GPU."""
import argparse, json, math, os, time, queue as Q, sys
os.environ.setdefault("OMP_NUM_THREADS","1"); os.environ["TOKENIZERS_PARALLELISM"]="false"
import numpy as np, torch
import torch.multiprocessing as mp
from lang_agent.config import load_config
from lang_agent import TrainConfig
from lang_agent.language_env import ExpertLostError
from lang_agent.train.run_parts import make_env

NOISES=(0.0,0.05,0.15,0.3); 
MAXW=448
def texts_of(env, episodes=2500, seed=10**6):
    from collections import Counter
    lines=Counter(); words=Counter(); phrases=Counter(); from_=0
    import re
    rng=np.random.default_rng(5)
    n=len(env.parts); per=max(episodes//n,1); tot=0
    for part in range(n):
        e=env.envs[part]
        for k in range(per):
            tot+=1; read=set()
            o,i=e.reset(seed=seed+k); last=None; d=False
            try:
                while not d:
                    a=e.unwrapped.expert_action(last) if hasattr(e.unwrapped,"expert_action") else e.expert_action(last)
                    last=a
                    if rng.random()<.1: last=i["actions"][rng.integers(len(i["actions"]))]
                    f,*r=o.split("\n"); read|={f,*("\n"+x for x in r)}
                    for p in i["actions"]: phrases[p]+=1
                    o,_,te,tr,i=e.step(last); d=te or tr
            except ExpertLostError: pass
            lines.update(read); words.update({w for l in (*read,*i["actions"]) for w in re.findall(r"[^\W\d_]+",l)})
    known={w for w,c in words.items() if c>0.004*tot}
    L=sorted(l for l in lines if known.issuperset(re.findall(r"[^\W\d_]+",l)))
    ph=sorted(p for p in phrases if known>={*re.findall(r"[^\W\d_]+",p)})
    return L+[f" {p}" for p in ph]*max(len(L)//4,100)

def worker(config_file, tokenizer, first, stride, q, stop):
    import random
    from lang_agent.models.codec import Codec
    torch.set_num_threads(1)
    c=load_config(config_file,TrainConfig,trust=True); env=make_env(c); codec=Codec(tokenizer,False)
    rng=np.random.default_rng(first+12345); seed=first
    toks=[];plen=[];alen=[];part=[];eps=0
    acts={}
    while not stop.is_set():
        noise=NOISES[rng.integers(len(NOISES))]
        o,i=env.reset(seed=seed); seed+=stride; last=None; d=False; n=0
        try:
            while not d and n<400:
                a=env.expert_action(last); last=a; n+=1
                ids=codec.encode_prompt(o)
                ans=acts.get(a)
                if ans is None:
                    if len(acts)>5000: acts.clear()
                    ans=acts[a]=codec.encode_answer(a)
                if len(ids)+len(ans)<=MAXW:
                    toks.append(np.asarray(ids+ans,dtype=np.uint16)); plen.append(len(ids)); alen.append(len(ans)); part.append(i["part"])
                if noise and rng.random()<noise: last=i["actions"][rng.integers(len(i["actions"]))]
                o,r,te,tr,i=env.step(last); d=te or tr
        except ExpertLostError: pass
        eps+=1
        if len(toks)>=2000:
            flat=np.concatenate(toks)
            q.put((flat,np.asarray(plen,dtype=np.int32),np.asarray(alen,dtype=np.int32),np.asarray(part,dtype=np.int32),eps))
            toks=[];plen=[];alen=[];part=[];eps=0

class Ring:
    def __init__(s,size,dev):
        s.t=torch.zeros(size,MAXW,dtype=torch.int16,device=dev); s.p=torch.zeros(size,dtype=torch.int32,device=dev); s.a=torch.zeros(size,dtype=torch.int32,device=dev); s.part=torch.zeros(size,dtype=torch.int32,device=dev)
        s.size=size; s.n=0; s.at=0; s.dev=dev
    def add(s,flat,pl,al,part):
        k=len(pl); w=np.zeros((k,MAXW),dtype=np.int16); ln=pl+al
        mask=np.arange(MAXW)[None]<ln[:,None]; w[mask]=flat.astype(np.int16)
        idx=(torch.arange(k)+s.at)%s.size; idx=idx.to(s.dev)
        s.t[idx]=torch.from_numpy(w).to(s.dev); s.p[idx]=torch.from_numpy(pl).to(s.dev); s.a[idx]=torch.from_numpy(al).to(s.dev); s.part[idx]=torch.from_numpy(part).to(s.dev)
        s.at=(s.at+k)%s.size; s.n=min(s.n+k,s.size)

def loss_of(policy,tok,pl,al):
    """sum of CE per decision (N,), and whether all tokens are right"""
    from lang_agent.models.phrase_scoring import Layout
    n,w=tok.shape; dev=tok.device
    col=torch.arange(w,device=dev).expand(n,w)
    lay=Layout(tok,col,col,col,col,torch.arange(n,device=dev),pl-1,torch.zeros(n,0,dtype=torch.long,device=dev),False)
    h=policy.hidden_states(lay).last
    k=int(al.max()); at=(pl-1)[:,None]+torch.arange(k,device=dev)
    real=torch.arange(k,device=dev)<al[:,None]; at=at.clamp(max=w-2)
    st=h[torch.arange(n,device=dev)[:,None],at][real]; tgt=tok.gather(1,at+1)[real]
    lg=policy.token_logits(st)
    ce=torch.nn.functional.cross_entropy(lg,tgt,reduction="none")
    per=torch.zeros(n,k,device=dev); per[real]=ce
    right=torch.ones(n,k,dtype=torch.bool,device=dev); right[real]=lg.argmax(-1)==tgt
    return per.sum(1), right.all(1)

def main():
    ap=argparse.ArgumentParser()
    ap.add_argument("--config",default="recipes/babyai.yaml"); ap.add_argument("--seconds",type=float,default=60); ap.add_argument("--workers",type=int,default=1)
    ap.add_argument("--init"); ap.add_argument("--out",default="out"); ap.add_argument("--batch",type=int,default=1024); ap.add_argument("--micro",type=int,default=65536)
    ap.add_argument("--lr",type=float,default=2e-3); ap.add_argument("--lr-end",type=float,default=0.05); ap.add_argument("--first",type=int,default=0); ap.add_argument("--ring",type=int,default=1<<20); ap.add_argument("--size",default="mini"); ap.add_argument("--save-every",type=float,default=200); ap.add_argument("--wait",type=int,default=30000); ap.add_argument("--warm",type=float,default=0.02)
    a=ap.parse_args(); mp.set_start_method("spawn")
    from lang_agent.models.policy import LanguagePolicy
    from lang_agent.models.store import save_whole, load_policy
    from lang_agent.learn.optimizer import Optimizer
    t0=time.time()
    c=load_config(a.config,TrainConfig,trust=True); env=make_env(c)
    if a.init: pol=load_policy(a.init)
    else:
        tx=texts_of(env); pol=LanguagePolicy.from_scratch(a.size,seed=1,texts=tx,names=env.renamed_words,context=512)
    from lang_agent.config import as_data
    pol.words=as_data(c.text)
    dev=torch.device("cuda" if torch.cuda.is_available() else "cpu"); pol.to(dev)
    if dev.type=="cuda": pol.set_precision("bf16"); pol.model.set_attn_implementation("sdpa")
    print("vocab",len(pol.tokenizer),"parameters",sum(p.numel() for p in pol.parameters()),f"{time.time()-t0:.1f}s",flush=True)
    q=mp.Queue(maxsize=64); stop=mp.Event()
    ps=[mp.Process(target=worker,args=(a.config,pol.tokenizer,a.first+k,a.workers,q,stop),daemon=True) for k in range(a.workers)]
    [p.start() for p in ps]
    ring=Ring(a.ring,dev); eps=dec=0; held=None
    def take(block=False):
        nonlocal eps,dec
        while True:
            try: flat,pl,al,part,e=q.get(block=block,timeout=120)
            except Q.Empty: return
            ring.add(flat,pl,al,part); eps+=e; dec+=len(pl); block=False
    while dec<a.wait: take(True)
    print(f"first {dec} decisions after {time.time()-t0:.1f}s",flush=True)
    hv=torch.randperm(ring.n,device=dev)[:4096] if False else None
    opt=Optimizer(pol,"muon",a.lr,0.01)
    pol.train(False)
    names=[" ".join(x.split()[:1])+(" "+x.split("wording=")[1].split()[0].split(":")[1] if "wording=" in x else "") for x in env.part_names]
    began=time.time(); step=0; log=open(a.out+".jsonl","a") ; lastsave=began; g=torch.Generator(device=dev); g.manual_seed(1)
    sums=torch.zeros(len(names),device=dev); rights=torch.zeros(len(names),device=dev); counts=torch.zeros(len(names),device=dev); used=0; tokens=0; lastlog=time.time()
    while (el:=time.time()-began)<a.seconds:
        take()
        f=el/a.seconds; opt.set_rate(a.lr*min(1,max(f/a.warm,0.01))*(1-(1-a.lr_end)*f))
        idx=torch.randint(ring.n,(a.batch,),device=dev,generator=g)
        ln=ring.p[idx]+ring.a[idx]; order=ln.argsort(); idx=idx[order]; lens=ln[order].tolist()
        opt.zero_grad(); i=0
        while i<a.batch:
            j=i
            while j<a.batch and (j-i+1)*lens[j]<=a.micro: j+=1
            j=max(j,i+1); w=min(-(-lens[j-1]//16)*16,MAXW); s=idx[i:j]
            tok=ring.t[s,:w].long(); pl=ring.p[s].long(); al=ring.a[s].long()
            tok=tok.clamp(min=0)
            l,r=loss_of(pol,tok,pl,al); (l.sum()/a.batch).backward(); tokens+=(j-i)*w
            with torch.no_grad():
                pt=ring.part[s].long(); sums.index_add_(0,pt,l.detach()); rights.index_add_(0,pt,r.float()); counts.index_add_(0,pt,torch.ones_like(l))
            i=j
        torch.nn.utils.clip_grad_norm_(pol.parameters(),1.0); opt.step(); step+=1; used+=a.batch
        if time.time()-lastlog>15:
            lastlog=time.time(); cc=counts.clamp(min=1); loss=(sums/cc).tolist(); acc=(rights/cc).tolist()
            row=dict(s=round(el),step=step,episodes=eps,decisions=dec,used=used,tokens=tokens,loss=float(sums.sum()/counts.sum()),acc=float(rights.sum()/counts.sum()),**{n+str(k):[round(x,3),round(y,3)] for k,(n,x,y) in enumerate(zip(names,loss,acc))})
            log.write(json.dumps(row)+"\n"); log.flush(); print({k:(round(v,4) if isinstance(v,float) else v) for k,v in row.items() if k in("s","step","episodes","decisions","used","tokens","loss","acc")},flush=True)
            sums.zero_();rights.zero_();counts.zero_()
        if time.time()-lastsave>a.save_every:
            lastsave=time.time(); save_whole(pol,__import__("pathlib").Path(a.out))
    stop.set()
    if os.path.exists(a.out): __import__("shutil").rmtree(a.out)
    pol.to("cpu"); pol.set_precision("fp32"); save_whole(pol,__import__("pathlib").Path(a.out))
    print({n+str(k):[round(x,3),round(y,3)] for k,(n,x,y) in enumerate(zip(names,loss,acc))})
    for p in ps: p.terminate()
    print("done",step,eps,dec,used,tokens,f"{time.time()-t0:.0f}s")
if __name__=="__main__": main()
