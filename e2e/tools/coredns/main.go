// CoreDNS with what a cluster's names need, and nothing else: the whole of it is three times as large.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

// In the order in which a question goes through them.
func init() { dnsserver.Directives = []string{"errors", "kubernetes"} }

func main() { coremain.Run() }
