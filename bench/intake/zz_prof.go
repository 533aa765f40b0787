package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"strconv"
	"syscall"
)

func init() {
	if p := os.Getenv("BENCH_PROF"); p != "" {
		f, _ := os.Create(p)
		pprof.StartCPUProfile(f)
	}
}

// cpu = own + children(pgbench), and postgres tree, in ms
func cpuNow(s *system) (own, kids, pg float64) {
	var a, b syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &a)
	syscall.Getrusage(syscall.RUSAGE_CHILDREN, &b)
	t := func(r syscall.Rusage) float64 { return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e6 }
	out, _ := exec.Command("bash", "-c", `p=$(pgrep -P `+strconv.Itoa(os.Getpid())+` -x postgres | head -1); cat /proc/$p/stat $(pgrep -P $p | sed 's,.*,/proc/&/stat,') 2>/dev/null; echo POST $p`).Output()
	for _, l := range strings.Split(string(out), "\n") {
		i := strings.LastIndex(l, ")")
		if i < 0 {
			continue
		}
		w := strings.Fields(l[i+1:])
		for _, k := range []int{11, 12, 13, 14} {
			v, _ := strconv.ParseFloat(w[k], 64)
			pg += v * 10
		}
	}
	return t(a), t(b), pg
}

func cpuReport(what string, s *system, n int64, own, kids, pg float64) {
	o, k, p := cpuNow(s)
	fmt.Fprintf(os.Stderr, "   CPU/request %s: own %.0f kids %.0f pg %.0f us (n=%d)\n", what, (o-own)*1000/float64(n), (k-kids)*1000/float64(n), (p-pg)*1000/float64(n), n)
}
