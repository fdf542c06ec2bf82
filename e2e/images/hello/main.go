// Hello is the program in test images: a web page that says who serves it, a
// client that fetches by name, and the small things that tests of pods need. It
// is static, knows only /etc/resolv.conf and /etc/hosts, and ends at once on
// SIGTERM, also as process 1.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const usage = `usage: hello COMMAND
  serve [PORT]             answer HTTP on PORT (8080): who serves, and what $PAGE says;
                           on SIGTERM go on for $LINGER (0s)
  fetch URL [TIMEOUT]      print what URL answers; try until TIMEOUT (5s) is over
  api PATH                 print what the cluster's API answers, asked with the pod's token
  ask URL                  print what URL answers, ten times a second, until SIGTERM
  load URL DURATION        ask URL by 4 at once, each time anew, until DURATION is
                           over or SIGTERM comes; print "N answers, M failures"
  end COMMAND              send SIGTERM to those who run COMMAND here
  dial HOST:PORT           connect once, and print how that went and how long it took
  lookup NAME [TYPE]       print what NAME resolves to: A AAAA HOST CNAME SRV PTR TXT
  sleep [DURATION]         wait, for ever if no duration is given
  echo TEXT...             print TEXT
  exit CODE                end with CODE
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	arg := func(i int, otherwise string) string {
		if i < len(args) {
			return args[i]
		}
		return otherwise
	}
	var err error
	switch arg(0, "") {
	case "serve":
		err = serve(ctx, arg(1, "8080"), os.Stdout)
	case "fetch":
		err = fetch(ctx, arg(1, ""), arg(2, "5s"))
	case "api":
		err = askAPI(ctx, arg(1, "/version"))
	case "ask":
		ask(ctx, arg(1, ""))
	case "load":
		err = load(ctx, arg(1, ""), arg(2, "5s"))
	case "end":
		err = end(arg(1, ""))
	case "dial":
		err = dial(ctx, arg(1, ""))
	case "lookup":
		err = lookup(ctx, arg(1, ""), strings.ToUpper(arg(2, "HOST")))
	case "sleep":
		err = sleep(ctx, arg(1, "0s"))
	case "echo":
		fmt.Println(strings.Join(args[1:], " "))
	case "exit":
		code, err := strconv.Atoi(arg(1, "0"))
		if err == nil {
			return code
		}
		fmt.Fprintln(os.Stderr, err)
		return 2
	default:
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serve answers every path with the page, /healthz with ok, /hostname with the
// bare name.
func serve(ctx context.Context, port string, out io.Writer) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("/hostname", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, host+"\n") })
	mux.HandleFunc("/client", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr+"\n") })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from %s\n", host)
		if page := os.Getenv("PAGE"); page != "" {
			fmt.Fprintln(w, page)
		}
	})
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "serving on %s as %s\n", l.Addr(), host)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if err := linger(os.Getenv("LINGER")); err != nil {
		return err
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err = srv.Shutdown(end)
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// linger gives those who still send requests here the time to hear of the end.
func linger(duration string) error {
	if duration == "" {
		return nil
	}
	d, err := time.ParseDuration(duration)
	if err == nil {
		time.Sleep(d)
	}
	return err
}

// fetch prints a page. Every try uses a new connection, so that services can
// choose another endpoint.
func fetch(ctx context.Context, url, timeout string) error {
	limit, err := time.ParseDuration(timeout)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		body, err := fetchOnce(ctx, url)
		if err == nil {
			_, err = os.Stdout.Write(body)
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func fetchOnce(ctx context.Context, url string) ([]byte, error) {
	return get(ctx, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 3 * time.Second}, url, "")
}

// askAPI does what every program in a cluster does: it finds the API by its
// name, believes the CA that is mounted, and shows the pod's token.
func askAPI(ctx context.Context, path string) error {
	const mounted = "/var/run/secrets/kubernetes.io/serviceaccount/"
	token, err := os.ReadFile(mounted + "token")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(mounted + "ca.crt")
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return errors.New("ca.crt holds no certificate")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: 10 * time.Second}
	body, err := get(ctx, client, "https://kubernetes.default.svc"+path, string(token))
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(body)
	return err
}

func get(ctx context.Context, client *http.Client, url, token string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return body, err
}

// ask goes on for ever: what fails is told, and tried again.
func ask(ctx context.Context, url string) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if body, err := fetchOnce(ctx, url); err != nil {
			fmt.Fprintln(os.Stderr, err)
		} else {
			os.Stdout.Write(body)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// load counts what is answered and what is not, and tells the first failures.
func load(ctx context.Context, url, duration string) error {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var answers, failures atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				switch _, err := fetchOnce(ctx, url); {
				case err == nil:
					answers.Add(1)
				case ctx.Err() == nil && failures.Add(1) <= 10:
					fmt.Fprintln(os.Stderr, time.Now().Format(time.StampMilli), err)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	clients.Wait()
	_, err = fmt.Printf("%d answers, %d failures\n", answers.Load(), failures.Load())
	return err
}

// end ends other commands in the same container.
func end(command string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	ended := 0
	for _, dir := range dirs {
		line, err := os.ReadFile(dir + "/cmdline")
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if argv := strings.Split(string(line), "\x00"); err == nil && len(argv) > 1 && argv[1] == command && pid != os.Getpid() {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				return err
			}
			ended++
		}
	}
	if ended == 0 {
		return fmt.Errorf("nobody runs %s here", command)
	}
	return nil
}

// dial tells whether a connection is accepted, refused, or met by silence.
func dial(ctx context.Context, address string) error {
	begun := time.Now()
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	took := time.Since(begun)
	switch {
	case err == nil:
		conn.Close()
		fmt.Printf("connected after %d ms\n", took.Milliseconds())
	case errors.Is(err, syscall.ECONNREFUSED):
		fmt.Printf("refused after %d ms\n", took.Milliseconds())
	default:
		fmt.Printf("%v after %d ms\n", err, took.Milliseconds())
	}
	return nil
}

// lookup prints one answer a line, sorted. HOST asks as programs do, with
// /etc/hosts and both families.
func lookup(ctx context.Context, name, kind string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := resolve(ctx, &net.Resolver{PreferGo: true}, name, kind)
	if err != nil {
		return err
	}
	slices.Sort(out)
	for _, s := range out {
		fmt.Println(s)
	}
	return nil
}

func resolve(ctx context.Context, r *net.Resolver, name, kind string) (out []string, err error) {
	switch kind {
	case "HOST":
		return r.LookupHost(ctx, name)
	case "A", "AAAA":
		ips, err := r.LookupNetIP(ctx, map[string]string{"A": "ip4", "AAAA": "ip6"}[kind], name)
		for _, ip := range ips {
			out = append(out, ip.Unmap().String())
		}
		return out, err
	case "CNAME":
		c, err := r.LookupCNAME(ctx, name)
		return []string{c}, err
	case "SRV":
		_, srvs, err := r.LookupSRV(ctx, "", "", name)
		for _, s := range srvs {
			out = append(out, fmt.Sprintf("%d %d %d %s", s.Priority, s.Weight, s.Port, s.Target))
		}
		return out, err
	case "PTR":
		return r.LookupAddr(ctx, name)
	case "TXT":
		return r.LookupTXT(ctx, name)
	}
	return nil, fmt.Errorf("unknown type %q", kind)
}

func sleep(ctx context.Context, duration string) error {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	if d == 0 {
		<-ctx.Done()
		return nil
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return nil
}
